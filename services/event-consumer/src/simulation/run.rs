//! One run: faults, then peace in which everything has to get through, then the verdict.

use super::coverage::{Boundary, Coverage};
use super::member::{Member, State};
use super::plan::{Fault, Plan};
use super::sabotage::Sabotage;
use super::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What to run. All of it is decided by the seed, unless a failure is being reduced.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    /// In percent.
    pub(super) size: u64,
    pub(super) without: Vec<Fault>,
    pub(super) sabotage: Option<Sabotage>,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Result<(), String>,
    pub(super) trace_hash: u64,
    pub(super) trace: String,
    pub(super) coverage: Coverage,
}

impl Case {
    pub(super) const fn of(seed: u64) -> Self {
        Self { seed, size: super::plan::FULL_SIZE, without: Vec::new(), sabotage: None }
    }

    pub(super) fn plan(&self) -> Plan {
        let plan = Plan::new(self.seed, self.size);
        self.without.iter().fold(plan, |plan, fault| plan.without(*fault))
    }

    pub(super) fn run(&self, keep_trace: bool) -> Outcome {
        let mut world = World::new(self.seed, self.plan(), self.sabotage, keep_trace);
        // A broken invariant of the core is a finding like any other.
        let verdict = catch_unwind(AssertUnwindSafe(|| world.live()))
            .unwrap_or_else(|_| Err("the core panicked".to_owned()));
        if let Err(violation) = &verdict {
            world.line(format_args!("VIOLATION: {violation}"));
        }
        let (trace_hash, coverage) = (world.trace.hash(), world.coverage);
        Outcome { verdict, trace_hash, trace: world.trace.into_lines(), coverage }
    }
}

impl World {
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.advance()?;
        }
        self.heal()?;
        self.get_everything_through()?;
        while !self.late.is_empty() {
            self.land_late()?;
        }
        self.judge_end()
    }

    /// Faults end, and the people who run the service have done their part.
    fn heal(&mut self) -> Result<(), String> {
        self.line(format_args!("peace"));
        self.calm = true;
        (self.skew, self.jump) = (0, 0);
        self.store.away_until = self.now;
        if self.epoch_is_reused(self.log.epoch()) {
            self.recreate(true)?;
        }
        self.finish_producing();
        for slot in 0..self.members.len() {
            match &mut self.members[slot] {
                Some(member) if member.state == State::Stopped => member.state = State::Running,
                Some(member) if member.epoch() == self.log.epoch() && !member.is_limited() => {}
                _ => self.restart(slot),
            }
        }
        Ok(())
    }

    fn restart(&mut self, slot: usize) {
        self.kill(slot);
        self.start_member(slot, self.log.epoch());
    }

    /// Everything that is in the log is stored and committed, within a bounded number of rounds.
    fn get_everything_through(&mut self) -> Result<(), String> {
        let entries: usize = self.log.life().partitions.iter().map(|p| p.entries.len()).sum();
        let rounds = 60 + 3 * entries;
        for round in 0..rounds {
            if self.is_through() && self.late.is_empty() {
                return Ok(());
            }
            // Longer than a batch waits, and longer than the wait after a failed commit.
            self.now += 1100;
            self.group.complete_if_ready(&mut self.prng);
            if round % 3 == 2 && !self.late.is_empty() {
                self.land_late()?;
            }
            for slot in 0..self.members.len() {
                self.one_round(slot)?;
            }
        }
        Err(format!("after {rounds} rounds of peace not everything is committed"))
    }

    fn one_round(&mut self, slot: usize) -> Result<(), String> {
        let ended =
            |member: &Member| member.state == State::Ended || member.epoch() != self.log.epoch();
        if self.members[slot].as_ref().is_none_or(ended) {
            self.restart(slot);
        }
        let stopped = self.members[slot].as_ref().is_some_and(|m| m.state == State::Stopped);
        if stopped || self.members[slot].as_ref().is_some_and(Member::is_limited) {
            self.restart(slot);
        }
        for _ in Boundary::ALL {
            self.with_member(slot, Member::advance)?;
            self.with_member(slot, |member, world| {
                member.advance_rebuild(world);
                Ok(member.advance_insert(world)?)
            })?;
        }
        Ok(())
    }

    fn is_through(&self) -> bool {
        (0..self.plan.partitions).all(|partition| {
            self.committed_or_low(partition) >= self.log.partition(partition).end()
                && !self.unseen_losses.contains(&partition)
        })
    }
}
