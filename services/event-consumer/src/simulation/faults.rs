//! Faults of processes, sessions, clocks and topics, and what the people who run the service do about them.

use super::coverage::Seen;
use super::log::Place;
use super::member::{Reason, State};
use super::plan::{Fault, HOUR, MINUTE};
use super::world::{World, leap_max};
use event_log::PartitionId;
use std::borrow::Cow;
use usage_store::IngestBatchRow;

impl World {
    /// What may go wrong between any two steps.
    pub(super) fn stir(&mut self) -> Result<(), String> {
        if self.happens(Fault::StoreOutage) {
            self.coverage.note(Seen::StoreOutage);
            self.store.away_until = self.now + self.prng.between(100, 8000);
        }
        if self.happens(Fault::Merge) {
            self.coverage.note(Seen::Merge);
            self.store.merge();
        }
        if self.happens(Fault::Rebalance) {
            self.line(format_args!("rebalance"));
            self.group.rebalance(&mut self.prng);
        }
        self.stir_members();
        self.stir_time();
        if self.happens(Fault::Trim) {
            self.trim();
        }
        if self.happens(Fault::CommitsExpired) {
            self.expire_commits()?;
        }
        if self.happens(Fault::Recreate) {
            self.recreate(true)?;
        }
        if self.happens(Fault::RecreateSameEpoch) && !self.epoch_is_reused(self.log.epoch()) {
            self.recreate(false)?;
        }
        if self.happens(Fault::RetentionLoss) {
            self.lose_to_retention()?;
        }
        Ok(())
    }

    fn stir_members(&mut self) {
        let slot = self.prng.index(self.members.len());
        if self.happens(Fault::Stop)
            && let Some(member) = &mut self.members[slot]
            && member.state == State::Running
        {
            member.state = State::Stopped;
            self.coverage.note(Seen::Stopped);
            self.line(format_args!("{slot} is stopped"));
        }
        if self.happens(Fault::Drain)
            && let Some(member) = &mut self.members[slot]
            && member.state == State::Running
        {
            member.state = State::Draining { deadline: self.now + self.prng.between(0, 3000) };
            self.line(format_args!("{slot} is asked to end"));
        }
        // A member that is dead is missed after a while; a living one may be missed as well.
        let dead = self.members[slot].is_none() && !self.calm && self.prng.chance(100);
        if (dead || self.happens(Fault::SessionLost)) && self.group.joined().contains(&slot) {
            self.coverage.note(Seen::SessionLost);
            self.line(format_args!("the session of {slot} ends"));
            self.group.leave(slot, &mut self.prng);
        }
    }

    fn stir_time(&mut self) {
        if self.happens(Fault::Leap) {
            let leap = self.prng.between(MINUTE, leap_max(&self.plan));
            let oldest = self.oldest_undecided();
            if oldest.is_none_or(|at| self.now + leap < at + self.plan.waited_max / 2) {
                self.coverage.note(Seen::TimeLeapt);
                self.now += leap;
                self.line(format_args!("time leaps by {} min", leap / MINUTE));
            }
        }
        if self.happens(Fault::Skew) {
            self.coverage.note(Seen::ClockSkewed);
            self.skew = self.prng.between(0, self.plan.waited_max / 4);
            self.jump = if self.prng.chance(200) { 90 * 24 * HOUR } else { 0 };
        }
    }

    /// Since when the oldest record waits that is not committed.
    fn oldest_undecided(&self) -> Option<u64> {
        let oldest = |partition| {
            let committed = self.committed_or_low(partition);
            self.log.partition(partition).from(committed).iter().map(|e| e.accepted_at).min()
        };
        let waiting = (0..self.plan.partitions).filter_map(oldest);
        waiting.chain(self.producers.delayed.iter().map(|record| record.accepted_at)).min()
    }

    /// Where reading would start.
    pub(super) fn committed_or_low(&self, partition: PartitionId) -> u64 {
        self.group.committed(partition).unwrap_or(self.log.partition(partition).low)
    }

    /// Retention takes records that are committed.
    fn trim(&mut self) {
        let partition = self.any_partition();
        let Some(committed) = self.group.committed(partition) else { return };
        let low = self.log.partition(partition).low;
        if committed > low {
            self.coverage.note(Seen::RetentionTrimmed);
            self.log.partition_mut(partition).low = self.prng.between(low, committed);
        }
    }

    /// The consumers are away, and nothing is on its way to the store.
    fn quiesce(&mut self) -> Result<(), String> {
        for slot in 0..self.members.len() {
            self.kill(slot);
            if self.group.joined().contains(&slot) {
                self.group.leave(slot, &mut self.prng);
            }
        }
        self.settle_late()
    }

    fn settle_late(&mut self) -> Result<(), String> {
        while !self.late.is_empty() {
            if self.prng.chance(500) {
                self.land_late()?;
            } else {
                self.late.pop();
            }
        }
        Ok(())
    }

    /// The group was away for so long that its offsets are forgotten, and records of the same age are gone.
    fn expire_commits(&mut self) -> Result<(), String> {
        self.quiesce()?;
        self.coverage.note(Seen::CommitsExpired);
        self.line(format_args!("the committed offsets expire"));
        for partition in 0..self.plan.partitions {
            let committed = self.committed_or_low(partition);
            let gone = self.now.saturating_sub(self.plan.waited_max / 2);
            let log = self.log.partition_mut(partition);
            let old = log.entries.iter().filter(|e| e.accepted_at < gone && e.offset < committed);
            log.low = old.map(|entry| entry.offset + 1).max().unwrap_or(0).max(log.low);
            self.group.committed[usize::from(partition)] = None;
        }
        Ok(())
    }

    /// The topic is deleted and created anew: by the book, with the consumers stopped and the epoch
    /// raised, or under the same epoch while they run.
    pub(super) fn recreate(&mut self, raised: bool) -> Result<(), String> {
        if raised {
            self.quiesce()?;
        } else {
            self.settle_late()?;
        }
        let epoch = self.log.epoch();
        self.producers.delayed.clear();
        for partition in 0..self.plan.partitions {
            let committed = self.committed_or_low(partition);
            let log = self.log.partition_mut(partition);
            let mut excused = Vec::new();
            for entry in log.entries.iter_mut().filter(|entry| entry.offset >= committed) {
                entry.lost = true;
                excused.extend(entry.event.filter(|_| !raised).map(|event| event.id));
            }
            self.log.excused.extend(excused);
            self.ended_lives.push((epoch, partition, committed));
            self.group.committed[usize::from(partition)] = None;
        }
        self.log.begin(if raised { epoch + 1 } else { epoch });
        self.retell();
        self.verified.fill(0);
        self.unseen_losses.clear();
        self.trimmed_beyond.clear();
        let epoch = self.log.epoch();
        self.line(format_args!("the topic is created anew in epoch {epoch}"));
        if raised {
            self.coverage.note(Seen::TopicRecreated);
            self.start_stale_members(epoch);
        } else {
            self.coverage.note(Seen::SameEpochRecreated);
            self.store.positions_reused = true;
            self.group.take_everything_back();
        }
        Ok(())
    }

    /// Somebody starts consumers before they are told of the new epoch. Where a record is poison or of
    /// an earlier epoch, nobody could tell, so the API is told after the consumers (docs/operations.md).
    fn start_stale_members(&mut self, epoch: u16) {
        let telling = [Fault::Poison, Fault::EarlierEpoch].map(|fault| self.plan.rate(fault));
        for slot in 0..self.members.len() {
            if telling == [0, 0] && !self.calm && self.prng.chance(400) {
                self.start_member(slot, epoch - 1);
            }
        }
    }

    /// Retention takes records that nobody has read.
    fn lose_to_retention(&mut self) -> Result<(), String> {
        let partition = self.any_partition();
        let epoch = self.log.epoch();
        let log = self.log.partition(partition);
        let committed = self.committed_or_low(partition).max(log.low);
        let end = log.end();
        // Where nothing was ever stored, nothing says that there was something before.
        if end <= committed || self.store.highest_stored(epoch, partition).is_none() {
            return Ok(());
        }
        self.quiesce()?;
        let low = self.prng.between(committed + 1, end);
        let place = |offset| -> Place { (epoch, partition, offset) };
        let lost = |offset| offset >= committed && offset < low;
        let unsettled =
            self.log.partition(partition).entries.iter().any(|entry| {
                lost(entry.offset) && self.settled(place(entry.offset), entry).is_err()
            });
        let log = self.log.partition_mut(partition);
        log.low = low;
        log.entries.iter_mut().filter(|e| lost(e.offset)).for_each(|e| e.lost = true);
        self.retell();
        self.line(format_args!("retention takes {partition}:{committed}..{low}"));
        self.trimmed_beyond.insert(partition);
        if unsettled {
            self.unseen_losses.insert(partition);
        }
        if self.prng.chance(500) {
            self.group.committed[usize::from(partition)] = None;
        }
        Ok(())
    }

    /// A consumer has ended by itself. Whoever is called has to find a reason.
    pub(super) fn judge_stop(&mut self, epoch: u16, reason: &Reason) -> Result<(), String> {
        if epoch != self.log.epoch() {
            self.coverage.note(Seen::StaleEpochStopped);
            return Ok(());
        }
        if self.epoch_is_reused(epoch) {
            self.coverage.note(Seen::SameEpochStopped);
            self.same_epoch_stops += 1;
            return if self.same_epoch_stops > 2 { self.recreate(true) } else { Ok(()) };
        }
        match reason {
            Reason::Gap(partition) | Reason::LogGap(partition)
                if self.trimmed_beyond.contains(partition) =>
            {
                self.coverage.note(Seen::LossStopped);
                self.accept_loss(*partition);
                Ok(())
            }
            _ => Err(format!("a consumer stopped without a reason: {reason:?}")),
        }
    }

    fn retell(&mut self) {
        let rows_of = &self.rows_of;
        self.log.retell(|id, row| rows_of.get(&id).is_some_and(|rows| rows.contains(row)));
    }

    /// What the message of the gap tells a person to do.
    fn accept_loss(&mut self, partition: PartitionId) {
        let (epoch, low) = (self.log.epoch(), self.log.partition(partition).low);
        let expected = self.store.highest_stored(epoch, partition).map_or(0, |last| last + 1);
        if expected < low {
            let row = accepted_loss(epoch, partition, expected, low - 1);
            self.store.accept(row);
        }
        self.group.committed[usize::from(partition)] = Some(low);
        self.unseen_losses.remove(&partition);
        self.line(format_args!("the loss of {partition}:{expected}..{low} is accepted"));
    }
}

fn accepted_loss(
    epoch: u16,
    partition: PartitionId,
    first: u64,
    last: u64,
) -> IngestBatchRow<'static> {
    IngestBatchRow {
        topic: Cow::Borrowed("usage.events"),
        epoch,
        partition,
        first_offset: first,
        last_offset: last,
        records: 0,
        stored: 0,
        duplicates: 0,
        conflicts: 0,
        dead_letters: 0,
        bytes_hash: 0,
        token: Cow::Borrowed(""),
        inserted_at: super::world::instant(0),
    }
}
