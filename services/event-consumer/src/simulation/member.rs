//! A member: the real core, driven in the order of steps of `pipeline.rs`, one step at a time.

mod inserting;
mod link;
mod membership;
mod rebuilding;
mod upkeep;

use super::coverage::{Boundary, Seen};
use super::plan::Fault;
use super::sabotage::Sabotage;
use super::world::{World, instant};
use crate::batch::{Batch, SealedBatch, Tenure};
use crate::decode::Source;
use crate::dedup::PositionOrder;
use crate::error::ConsumerError;
use crate::partition::{Halt, Partition, Round};
use crate::pauses::Pauses;
use crate::rebalance::Partitions;
use crate::too_large::TooLarge;
use crate::trusted_time::TrustedTime;
use event_log::{Offset, PartitionId, Polled};
use inserting::Inserting;
use link::Link;
use rebuilding::{Rebuild, Rebuilt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Wait after the log has failed, in milliseconds.
const LOG_RETRY: u64 = 1000;

/// Why a consumer ends before it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Rewritten(PartitionId),
    LaterEpoch,
    LogBehindStore(PartitionId),
    Gap(PartitionId),
    /// The committed offset is before the start of the log.
    LogGap(PartitionId),
    /// The committed offset, or the next to read, is behind the end of the log.
    LogCut(PartitionId),
}

impl Reason {
    /// # Panics
    /// When the log and the store fit together.
    fn of(misfit: &ConsumerError) -> Self {
        match misfit {
            ConsumerError::LogBehindStore { partition, .. } => Self::LogBehindStore(*partition),
            ConsumerError::Gap { partition, .. } => Self::Gap(*partition),
            other => panic!("not about the log and the store: {other}"),
        }
    }
}

/// Why a step did not end well.
#[derive(Clone, Debug)]
pub(super) enum End {
    Halt(Reason),
    Violation(String),
}

impl From<String> for End {
    fn from(violation: String) -> Self {
        Self::Violation(violation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// Stopped by a signal, with everything it holds.
    Stopped,
    /// Finishes the open batch, until then.
    Draining {
        deadline: u64,
    },
    /// Has ended as it should.
    Ended,
}

/// What a task has to tell.
#[derive(Debug)]
enum Report {
    Inserted { batch: SealedBatch, confirmed: bool },
    Rebuilt { tenures: Vec<Tenure>, outcome: rebuilding::Outcome },
}

pub(super) struct Member {
    pub(super) slot: usize,
    pub(super) incarnation: u64,
    pub(super) state: State,
    /// The step that comes next.
    pub(super) step: Boundary,
    source: Source,
    order: PositionOrder,
    bytes_max: usize,
    link: Link,
    partitions: Partitions,
    batch: Batch,
    inserting: Option<Inserting>,
    waiting: Vec<Tenure>,
    rebuilding: Option<Rebuild>,
    opening: Vec<(Tenure, Rebuilt)>,
    reports: VecDeque<Report>,
    pauses: Pauses,
    blocked_since: Option<u64>,
    full: bool,
    too_large: Option<TooLarge>,
    next_forget: u64,
    next_commit: u64,
    key: Vec<u8>,
    time: TrustedTime,
    /// For sabotage: batches that should have been given up, offsets that should not be committed,
    /// identities as they once were.
    kept: VecDeque<SealedBatch>,
    claimed: BTreeMap<PartitionId, Offset>,
    remembered: BTreeMap<PartitionId, Vec<rebuilding::Identity>>,
}

impl Member {
    pub(super) fn new(slot: usize, world: &World, epoch: u16, bytes_max: usize) -> Self {
        let partition_count = world.plan.partitions;
        Self {
            slot,
            incarnation: world.incarnations,
            state: State::Running,
            step: Boundary::Poll,
            source: Source { topic: "usage.events".to_owned(), epoch, partition_count },
            order: PositionOrder::new(epoch),
            bytes_max,
            link: Link::default(),
            partitions: Partitions::default(),
            batch: Batch::new(world.plan.limits),
            inserting: None,
            waiting: Vec::new(),
            rebuilding: None,
            opening: Vec::new(),
            reports: VecDeque::new(),
            pauses: Pauses::default(),
            blocked_since: None,
            full: false,
            too_large: None,
            next_forget: world.now,
            next_commit: world.now,
            key: Vec::new(),
            // Its clock is right when a process starts, or nearly so.
            time: TrustedTime::new(instant(world.now + world.skew), world.instant()),
            kept: VecDeque::new(),
            claimed: BTreeMap::new(),
            remembered: BTreeMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> u16 {
        self.source.epoch
    }

    /// Does the next step of the loop.
    pub(super) fn advance(&mut self, world: &mut World) -> Result<(), End> {
        if let State::Draining { deadline } = self.state {
            return self.drain(world, deadline);
        }
        let (step, next) = (self.step, Self::following(self.step));
        self.step = next;
        match step {
            Boundary::Poll => self.poll(world),
            Boundary::Decide => self.decide(world),
            Boundary::Send => {
                self.send_when_due(world);
                Ok(())
            }
            Boundary::TakeReports => self.take_reports(world),
            Boundary::Commit => self.commit(world),
            Boundary::Steer => {
                self.steer(world);
                Ok(())
            }
            _ => {
                self.observe(world);
                Ok(())
            }
        }
    }

    fn following(step: Boundary) -> Boundary {
        let at = Boundary::ALL.iter().position(|other| *other == step).expect("a step");
        if step >= Boundary::Observe { Boundary::Poll } else { Boundary::ALL[at + 1] }
    }

    fn poll(&mut self, world: &mut World) -> Result<(), End> {
        let waiting = |p: &Partition| p.has_work() && !self.pauses.contains(p.tenure().partition);
        let undecided = self.partitions.iter().any(waiting);
        if undecided && !self.full && !self.batch.is_full() {
            return Ok(());
        }
        if undecided {
            return self.take_one_report(world);
        }
        if world.happens(Fault::PollFailed) {
            world.coverage.note(Seen::PollFailed);
            return self.take_one_report(world);
        }
        match self.poll_link(world)? {
            Polled::Assigned(assignments) => self.assigned(world, &assignments),
            Polled::Revoked(partitions) => self.revoked(world, &partitions),
            Polled::Records(records) => {
                for records in records {
                    if let Some(partition) = self.partitions.get_mut(records.partition) {
                        partition.receive(records);
                    }
                }
            }
            Polled::Idle => {}
        }
        Ok(())
    }

    fn decide(&mut self, world: &mut World) -> Result<(), End> {
        if self.full {
            return Ok(());
        }
        let mut round = Round {
            source: &self.source,
            at: self.time.earliest(instant(world.clock()), world.instant()),
            at_latest: self.time.latest(world.instant()),
            now: world.instant(),
            key: &mut self.key,
        };
        for partition in self.partitions.iter_mut() {
            let before = partition.next();
            partition.decide_backlog(&mut self.batch, &mut round).map_err(halted)?;
            if partition.next() != before {
                let (slot, next) = (self.slot, partition.next());
                let partition = partition.tenure().partition;
                world.line(format_args!("{slot} decides {partition}:{before}..{next}"));
            }
        }
        if self.partitions.index_bytes() > self.bytes_max {
            self.make_room(world);
        }
        Ok(())
    }

    fn send_when_due(&mut self, world: &mut World) {
        if self.inserting.is_none()
            && let Some(kept) = self.kept.pop_front()
        {
            return self.start_insert(world, kept);
        }
        if self.inserting.is_some() || !self.batch.is_due(world.instant()) {
            let blocked = self.inserting.is_some() && self.batch.is_full();
            self.blocked_since =
                if blocked { self.blocked_since.or(Some(world.now)) } else { None };
            if blocked {
                world.coverage.note(Seen::BatchWaited);
            }
            return;
        }
        if self.batch.is_full() {
            world.coverage.note(Seen::BatchFull);
        }
        self.blocked_since = None;
        self.send(world);
    }

    fn take_reports(&mut self, world: &mut World) -> Result<(), End> {
        while !self.reports.is_empty() {
            self.take_one_report(world)?;
        }
        self.open_rebuilt(world)?;
        if !self.full || self.too_large.as_ref().is_some_and(|rebuild| rebuild.again) {
            self.start_next_rebuild(world);
        }
        Ok(())
    }

    fn take_one_report(&mut self, world: &mut World) -> Result<(), End> {
        match self.reports.pop_front() {
            None => Ok(()),
            Some(Report::Inserted { batch, confirmed }) => {
                self.inserting = None;
                if confirmed {
                    self.inserted(world, &batch);
                }
                Ok(())
            }
            Some(Report::Rebuilt { tenures, outcome }) => {
                self.rebuilding.take_if(|rebuild| rebuild.reported && rebuild.tenures == tenures);
                self.take_rebuilt(world, tenures, outcome);
                Ok(())
            }
        }
    }

    fn commit(&mut self, world: &mut World) -> Result<(), End> {
        let mut due: BTreeMap<_, _> = self.partitions.to_commit().into_iter().collect();
        due.extend(std::mem::take(&mut self.claimed));
        if due.is_empty() || world.now < self.next_commit {
            return Ok(());
        }
        let due: Vec<_> = due.into_iter().collect();
        if self.link.may_commit(world, (self.slot, self.incarnation), &due) {
            let refused = world.happens(Fault::CommitRefused);
            let heard = !world.happens(Fault::CommitAnswerLost)
                && world.sabotage != Some(Sabotage::DeafCommits);
            if !refused {
                world.commit(self.slot, self.epoch(), &due)?;
            }
            if !refused && heard {
                world.coverage.note(Seen::CommitConfirmed);
                self.partitions.committed();
                return Ok(());
            }
            let seen = if refused { Seen::CommitRefused } else { Seen::CommitAnswerLost };
            world.coverage.note(seen);
        } else {
            world.coverage.note(Seen::CommitFenced);
        }
        self.next_commit = world.now + LOG_RETRY;
        Ok(())
    }

    fn steer(&mut self, world: &mut World) {
        let blocked =
            self.blocked_since.is_some_and(|since| world.now - since >= world.plan.pause_after);
        let pause_all = blocked || self.full;
        let wanted: BTreeSet<_> = self
            .partitions
            .iter()
            .filter(|p| pause_all || p.index().is_none())
            .map(|p| p.tenure().partition)
            .collect();
        if !wanted.is_empty() {
            world.coverage.note(if pause_all { Seen::PausedAll } else { Seen::PausedForIndex });
        }
        let applied = self.pauses.apply(&mut self.link, wanted);
        // A fenced member is told so by its next poll.
        drop(applied);
    }

    /// A step of a shutdown: everything that was read is stored and committed, if there is time.
    fn drain(&mut self, world: &mut World, deadline: u64) -> Result<(), End> {
        let busy = self.inserting.is_some()
            || !self.batch.is_empty()
            || !self.partitions.to_commit().is_empty();
        if !busy || world.now >= deadline {
            let seen = if busy { Seen::DrainTimedOut } else { Seen::Drained };
            world.coverage.note(seen);
            self.state = State::Ended;
            return Ok(());
        }
        if self.inserting.is_none() && !self.batch.is_empty() {
            self.send(world);
        }
        self.take_one_report(world)?;
        self.commit(world)
    }

    /// Whether its memory has a limit.
    pub(super) const fn is_limited(&self) -> bool {
        self.bytes_max < usize::MAX
    }
}

fn halted(halt: Halt) -> End {
    End::Halt(match halt {
        Halt::LogRewritten(rewritten) => Reason::Rewritten(rewritten.partition),
        Halt::LaterEpoch { .. } => Reason::LaterEpoch,
    })
}
