//! The insert that is under way: the statements of `insert.rs`, each until it is confirmed.

use super::super::coverage::{Boundary, Seen};
use super::super::plan::Fault;
use super::super::sabotage::Sabotage;
use super::super::store::Statement;
use super::super::world::{World, instant};
use super::{Member, Report};
use crate::batch::{SealedBatch, Tenure};
use usage_store::EventRows;

#[derive(Debug)]
pub(super) struct Inserting {
    tenures: Vec<Tenure>,
    /// Gone once the outcome is reported.
    batch: Option<SealedBatch>,
    /// How many of its statements are through.
    through: usize,
    given_up: bool,
}

impl Member {
    pub(super) fn send(&mut self, world: &mut World) {
        let mut batch = self.batch.seal(&self.source, instant(world.clock()));
        if world.sabotage == Some(Sabotage::CommitBeforeInsert) {
            self.partitions.inserted(&batch.ranges);
        }
        if world.sabotage == Some(Sabotage::SkipPoison) {
            batch.dead_letters.clear();
        }
        self.start_insert(world, batch);
    }

    pub(super) fn start_insert(&mut self, world: &mut World, batch: SealedBatch) {
        let tally = batch.tally;
        let slot = self.slot;
        world.line(format_args!("{slot} sends {tally:?} of {} partitions", batch.ranges.len()));
        if tally.stored + tally.conflicts + tally.dead_letters == 0 {
            world.coverage.note(Seen::BatchOfDuplicatesOnly);
        }
        if batch.ranges.len() > 1 {
            world.coverage.note(Seen::BatchOfSeveralPartitions);
        }
        for (count, seen) in [
            (tally.stored, Seen::FirstCopy),
            (tally.duplicates, Seen::Duplicate),
            (tally.conflicts, Seen::Conflict),
            (tally.dead_letters, Seen::DeadLetter),
        ] {
            if count > 0 {
                world.coverage.note(seen);
            }
        }
        let tenures = batch.ranges.iter().map(|range| range.tenure).collect();
        self.inserting =
            Some(Inserting { tenures, batch: Some(batch), through: 0, given_up: false });
    }

    /// Which statement is to be sent next: events, conflicts, dead letters, audit.
    fn statement_number(world: &World, through: usize) -> usize {
        match (world.sabotage, through) {
            (Some(Sabotage::AuditFirst), 0) => 3,
            (Some(Sabotage::AuditFirst), later) => later - 1,
            (_, through) => through,
        }
    }

    /// The boundary at which an insert stands.
    pub(in super::super) fn insert_boundary(&self) -> Boundary {
        let through = self.inserting.as_ref().map_or(0, |inserting| inserting.through);
        let boundaries = [
            Boundary::InsertEvents,
            Boundary::InsertConflicts,
            Boundary::InsertDeadLetters,
            Boundary::InsertAudit,
        ];
        boundaries[through.min(3)]
    }

    pub(in super::super) fn is_inserting(&self) -> bool {
        self.inserting.as_ref().is_some_and(|inserting| inserting.batch.is_some())
    }

    /// Sends the next statement, and reports after the last.
    pub(in super::super) fn advance_insert(&mut self, world: &mut World) -> Result<(), String> {
        let zombie = !world.group.is_member(self.slot, self.incarnation);
        let Some(Inserting { batch: slot, through, given_up, .. }) = &mut self.inserting else {
            return Ok(());
        };
        let Some(batch) = slot else { return Ok(()) };
        if !*given_up {
            let number = Self::statement_number(world, *through);
            if !send_statement(world, batch, number)? {
                return Ok(());
            }
            if zombie {
                world.coverage.note(Seen::ZombieInserted);
            }
            *through += 1;
            if *through < 4 {
                return Ok(());
            }
        }
        let confirmed = !*given_up;
        let batch = slot.take().expect("it is under way");
        let seen = if confirmed { Seen::InsertConfirmed } else { Seen::InsertAbandoned };
        world.coverage.note(seen);
        let slot = self.slot;
        world.line(format_args!("{slot} insert ends, confirmed: {confirmed}"));
        self.reports.push_back(Report::Inserted { batch, confirmed });
        Ok(())
    }

    pub(super) fn inserted(&mut self, world: &World, batch: &SealedBatch) {
        self.partitions.inserted(&batch.ranges);
        if world.sabotage == Some(Sabotage::KeepBufferAndCommit) {
            self.claimed
                .extend(batch.ranges.iter().map(|range| (range.tenure.partition, range.next)));
        }
        self.next_commit = world.now;
    }

    /// Gives up an insert of which nothing is ours any more.
    pub(super) fn abandon_unless_held(&mut self, world: &mut World) {
        let held = |inserting: &Inserting| {
            inserting.tenures.iter().any(|tenure| self.partitions.holds(*tenure))
        };
        if self.inserting.as_ref().is_some_and(|inserting| !held(inserting)) {
            self.leave_behind(world);
            if let Some(inserting) = &mut self.inserting {
                inserting.given_up = true;
            }
        }
    }

    /// What is on its way to the store may still arrive there.
    pub(in super::super) fn leave_behind(&mut self, world: &mut World) {
        let Some(Inserting { batch: Some(batch), through, .. }) = &self.inserting else { return };
        let number = Self::statement_number(world, *through);
        if world.happens(Fault::InsertLate)
            && let Some(statement) = Statement::of(batch, number)
        {
            world.late.push(statement);
        }
    }
}

/// Whether the statement is through.
fn send_statement(world: &mut World, batch: &SealedBatch, number: usize) -> Result<bool, String> {
    if number == 1 && world.sabotage == Some(Sabotage::LastWriteWins) {
        let mut rows = EventRows::default();
        for conflict in batch.conflicts.iter().map(|conflict| conflict.row()) {
            let (hash, fingerprint) =
                (metering::IdentityHash([0; 16]), conflict.payload_fingerprint);
            rows.push(&conflict.event, conflict.position, hash, fingerprint);
        }
        let rows = rows.finish();
        world.apply(&Statement::Events { rows, token: "conflicts".to_owned() })?;
    }
    let Some(mut statement) = Statement::of(batch, number) else { return Ok(true) };
    if let (Statement::Events { token, .. }, Some(Sabotage::TokenWithoutBytes)) =
        (&mut statement, world.sabotage)
    {
        let ranges = |range: &crate::batch::Range| {
            format!("{}:{}-{},", range.tenure.partition, range.first, range.next)
        };
        *token = batch.ranges.iter().map(ranges).collect();
    }
    let confirmed = world.send(&statement)?;
    if world.sabotage == Some(Sabotage::SendTwice) {
        world.send(&statement)?;
    }
    Ok(confirmed || world.sabotage == Some(Sabotage::CommitPastFailure))
}
