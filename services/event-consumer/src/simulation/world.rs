//! Everything around the core, and the scheduler that moves it: one thing at a time, chosen by the seed.

use super::coverage::{Coverage, Seen};
use super::group::Group;
use super::log::Log;
use super::member::{End, Member, State};
use super::plan::{Fault, HOUR, MINUTE, Plan};
use super::prng::Prng;
use super::producers::Producers;
use super::sabotage::Sabotage;
use super::store::{Statement, Store};
use super::trace::Trace;
use chrono::{DateTime, Utc};
use event_log::PartitionId;
use metering::UsageEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// The wall-clock time of a simulated instant, in milliseconds since the start.
pub(super) fn instant(millis: u64) -> DateTime<Utc> {
    UsageEvent::example().timestamp + Duration::from_millis(millis)
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) prng: Prng,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    /// Milliseconds since the start.
    pub(super) now: u64,
    /// How far the clocks of consumers are ahead.
    pub(super) skew: u64,
    /// How far they were set ahead after the processes had started.
    pub(super) jump: u64,
    /// Only ever used as an origin.
    origin: Instant,
    /// No faults any more.
    pub(super) calm: bool,
    pub(super) log: Log,
    pub(super) group: Group,
    pub(super) store: Store,
    pub(super) producers: Producers,
    pub(super) members: Vec<Option<Member>>,
    pub(super) incarnations: u64,
    /// Statements that were given up on and may still arrive.
    pub(super) late: Vec<Statement>,
    /// Late statements that have arrived.
    pub(super) landings: u64,
    /// What the oracle has to remember.
    pub(super) verified: Vec<u64>,
    /// The rows of each event: place, acceptance and payload.
    pub(super) rows_of: BTreeMap<u64, Vec<(super::log::Place, u64, u64)>>,
    pub(super) ended_lives: Vec<(u16, PartitionId, u64)>,
    /// Partitions of which records are gone that were not stored, and nobody has noticed.
    pub(super) unseen_losses: BTreeSet<PartitionId>,
    pub(super) trimmed_beyond: BTreeSet<PartitionId>,
    pub(super) same_epoch_stops: u64,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, sabotage: Option<Sabotage>, keep_trace: bool) -> Self {
        let no_tokens = sabotage == Some(Sabotage::NoTokens);
        let partitions = usize::from(plan.partitions);
        let mut world = Self {
            prng: Prng::stream(seed, 2),
            sabotage,
            trace: Trace::new(keep_trace),
            coverage: Coverage::default(),
            // Far enough from the origin for every horizon.
            now: 100 * 24 * HOUR,
            skew: 0,
            jump: 0,
            origin: Instant::now(),
            calm: false,
            log: Log::new(2, plan.partitions, plan.horizon),
            group: Group::new(plan.partitions, plan.incremental),
            store: Store::new(if no_tokens { 0 } else { plan.token_window }),
            producers: Producers::default(),
            members: Vec::new(),
            incarnations: 0,
            late: Vec::new(),
            landings: 0,
            verified: vec![0; partitions],
            rows_of: BTreeMap::new(),
            ended_lives: Vec::new(),
            unseen_losses: BTreeSet::new(),
            trimmed_beyond: BTreeSet::new(),
            same_epoch_stops: 0,
            plan,
        };
        world.members.resize_with(world.plan.members, || None);
        for slot in 0..world.plan.members {
            world.start_member(slot, 2);
        }
        world
    }

    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }

    /// What the clock of a consumer shows.
    pub(super) const fn clock(&self) -> u64 {
        self.now + self.skew + self.jump
    }

    pub(super) fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    pub(super) fn happens(&mut self, fault: Fault) -> bool {
        let rate = self.plan.rate(fault);
        !self.calm && rate > 0 && self.prng.chance(rate)
    }

    pub(super) fn any_partition(&mut self) -> PartitionId {
        let partition = self.prng.below(u64::from(self.plan.partitions));
        u16::try_from(partition).expect("below a u16")
    }

    pub(super) const fn store_is_away(&self) -> bool {
        self.now < self.store.away_until
    }

    /// One thing happens.
    pub(super) fn advance(&mut self) -> Result<(), String> {
        self.now += self.prng.below(120);
        self.group.complete_if_ready(&mut self.prng);
        self.stir()?;
        if self.prng.chance(self.plan.publishing) {
            self.produce();
            return Ok(());
        }
        if !self.late.is_empty() && self.prng.chance(100) {
            return self.land_late();
        }
        let slot = self.prng.index(self.members.len());
        self.move_member(slot)
    }

    fn move_member(&mut self, slot: usize) -> Result<(), String> {
        let Some(state) = self.members[slot].as_ref().map(|member| member.state) else {
            if self.prng.chance(200) {
                self.start_member(slot, self.log.epoch());
            }
            return Ok(());
        };
        match state {
            State::Stopped => {
                if self.prng.chance(100) {
                    self.line(format_args!("{slot} continues"));
                    self.member(slot).state = State::Running;
                }
                Ok(())
            }
            State::Ended => {
                self.members[slot] = None;
                self.group.leave(slot, &mut self.prng);
                Ok(())
            }
            State::Running | State::Draining { .. } => match self.prng.below(10) {
                0..6 => self.loop_of_member(slot),
                6..9 => self.insert_of_member(slot),
                _ => self.with_member(slot, |member, world| {
                    member.advance_rebuild(world);
                    Ok(())
                }),
            },
        }
    }

    fn loop_of_member(&mut self, slot: usize) -> Result<(), String> {
        for _ in 0..self.prng.between(1, 8) {
            let Some(member) = &self.members[slot] else { return Ok(()) };
            let (step, state) = (member.step, member.state);
            if state == State::Ended {
                return Ok(());
            }
            if self.happens(Fault::Crash) {
                self.coverage.note(Seen::CrashBefore(step));
                self.kill(slot);
                return Ok(());
            }
            self.with_member(slot, Member::advance)?;
        }
        Ok(())
    }

    fn insert_of_member(&mut self, slot: usize) -> Result<(), String> {
        for _ in 0..self.prng.between(1, 4) {
            let Some(member) = &self.members[slot] else { return Ok(()) };
            // Rarer than the other steps, so that each statement is met.
            let crashes = member.is_inserting() && (0..4).any(|_| self.happens(Fault::Crash));
            if crashes {
                let boundary = self.member(slot).insert_boundary();
                self.coverage.note(Seen::CrashBefore(boundary));
                self.kill(slot);
                return Ok(());
            }
            self.with_member(slot, |member, world| Ok(member.advance_insert(world)?))?;
        }
        Ok(())
    }

    pub(super) fn member(&mut self, slot: usize) -> &mut Member {
        self.members[slot].as_mut().expect("it runs")
    }

    /// Lets a member act on the world. One that stops by itself is judged.
    pub(super) fn with_member(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Member, &mut Self) -> Result<(), End>,
    ) -> Result<(), String> {
        let Some(mut member) = self.members[slot].take() else { return Ok(()) };
        match act(&mut member, self) {
            Ok(()) => {
                self.members[slot] = Some(member);
                Ok(())
            }
            Err(End::Violation(violation)) => Err(violation),
            Err(End::Halt(reason)) => {
                member.leave_behind(self);
                self.line(format_args!("{slot} stops: {reason:?}"));
                self.judge_stop(member.epoch(), &reason)
            }
        }
    }

    pub(super) fn start_member(&mut self, slot: usize, epoch: u16) {
        self.incarnations += 1;
        let limit = if self.calm { usize::MAX } else { self.plan.index_bytes_max };
        let member = Member::new(slot, self, epoch, limit);
        let keeps = self.plan.static_members;
        if keeps && self.group.joined().contains(&slot) {
            self.coverage.note(Seen::StaticRestart);
        }
        self.group.join(slot, member.incarnation, keeps, &mut self.prng);
        self.line(format_args!("{slot} starts in epoch {epoch}"));
        self.members[slot] = Some(member);
    }

    /// SIGKILL. The group hears of it only when the session ends.
    pub(super) fn kill(&mut self, slot: usize) {
        if let Some(mut member) = self.members[slot].take() {
            self.line(format_args!("{slot} is killed before {:?}", member.step));
            member.leave_behind(self);
        }
    }

    /// One attempt at a statement; `false` when it was not confirmed.
    pub(super) fn send(&mut self, statement: &Statement) -> Result<bool, String> {
        if self.store_is_away() || self.happens(Fault::InsertRefused) {
            self.coverage.note(Seen::InsertRefused);
            return Ok(false);
        }
        if self.happens(Fault::InsertLate) {
            self.late.push(statement.clone());
            return Ok(false);
        }
        if self.happens(Fault::InsertPartial) && matches!(statement, Statement::Events { .. }) {
            self.coverage.note(Seen::InsertLandedPartly);
            let odd = self.prng.below(2) == 1;
            self.apply_months(statement, |month| (month % 2 == 1) == odd)?;
            return Ok(false);
        }
        self.apply(statement)?;
        if self.happens(Fault::InsertAnswerLost) {
            self.coverage.note(Seen::InsertAnswerLost);
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn apply(&mut self, statement: &Statement) -> Result<(), String> {
        self.apply_months(statement, |_| true)
    }

    fn apply_months(
        &mut self,
        statement: &Statement,
        lands: impl FnMut(u32) -> bool,
    ) -> Result<(), String> {
        let applied = self.store.apply(statement, lands)?;
        if applied.dropped_by_token {
            self.coverage.note(Seen::InsertTokenDropped);
        }
        if applied.repeated_rows > 0 {
            self.coverage.note(Seen::InsertDuplicated);
        }
        for row in &applied.new_rows {
            self.judge_row(row)?;
        }
        if let Statement::Audit(rows) = statement {
            for row in rows {
                self.judge_audit(row)?;
            }
        }
        Ok(())
    }

    pub(super) fn land_late(&mut self) -> Result<(), String> {
        let at = self.prng.index(self.late.len());
        let statement = self.late.swap_remove(at);
        self.landings += 1;
        self.coverage.note(Seen::InsertLandedLate);
        self.line(format_args!("a late statement lands"));
        self.apply(&statement)
    }
}

/// Longest leap, in milliseconds, in a plan of this horizon.
pub(super) fn leap_max(plan: &Plan) -> u64 {
    (plan.horizon * 2 / 3).clamp(5 * MINUTE, 10 * 24 * HOUR)
}
