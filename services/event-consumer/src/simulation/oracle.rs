//! What must hold at every step and in the end. It knows the log and the store, and nothing of the consumer.

use super::coverage::Seen;
use super::log::{Entry, Fate, Place};
use super::producers::Payload;
use super::store::Row;
use super::world::{World, instant};
use event_log::{Offset, PartitionId};
use std::collections::BTreeMap;
use usage_store::IngestBatchRow;

type Check = Result<(), String>;

impl World {
    /// Two logs had the same positions, so only identities can be told apart.
    pub(super) fn epoch_is_reused(&self, epoch: u16) -> bool {
        self.log.lives.iter().filter(|life| life.epoch == epoch).count() > 1
    }

    /// A row that has landed where there was none: somebody produced it, and it is a first copy.
    pub(super) fn judge_row(&mut self, row: &Row) -> Check {
        let place = row.place;
        let found =
            self.log.at(place).find(|entry| entry.event.is_some_and(|e| says(row, e, entry)));
        let Some(entry) = found else {
            return Err(format!("nobody produced the row at {place:?}: {row:?}"));
        };
        let (event, fate) = (entry.event.expect("an event"), entry.fate);
        let accepted_at = entry.accepted_at;
        if !self.epoch_is_reused(place.0) && !matches!(fate, Fate::Stored | Fate::Open) {
            return Err(format!("the row at {place:?} is a later copy: {fate:?}"));
        }
        if fate == Fate::Open {
            self.coverage.note(Seen::RebilledBeyondHorizon);
        }
        let row = (place, accepted_at, event.payload);
        self.rows_of.entry(event.id).or_default().push(row);
        if self.log.excused.contains(&event.id) {
            Ok(())
        } else {
            self.judge_horizon(event.id, place)
        }
    }

    /// A row that has landed is beyond the horizon of the one that was billed before, if there is one.
    fn judge_horizon(&self, id: u64, place: Place) -> Check {
        let rows = &self.rows_of[&id];
        // Rows that say the same have one sort key. The first of them is billed, and after a merge it is
        // the only one there is to remember.
        let is_billed = |row: &&(Place, u64, u64)| {
            !rows.iter().any(|other| other.2 == row.2 && order(other.0) < order(row.0))
        };
        let mut billed: Vec<_> = rows.iter().filter(is_billed).collect();
        billed.sort_by_key(|row| row.1);
        // Of an event that was billed twice already, beyond the horizon, a rebuilt index remembers the
        // first row, and lets go of both when that one is old.
        let &[(one, accepted_at, _), (other, ..)] = billed.as_slice() else { return Ok(()) };
        let latest = self.log.at(*other).map(|entry| entry.latest).max().unwrap_or_default();
        if [*one, *other].contains(&place) && accepted_at + self.plan.horizon >= latest {
            return Err(format!("event {id} is billed at {one:?} and {other:?}"));
        }
        Ok(())
    }

    /// A range of the audit that has landed: it speaks of what is there, and counts right.
    pub(super) fn judge_audit(&self, row: &IngestBatchRow<'_>) -> Check {
        let IngestBatchRow { epoch, partition, first_offset, last_offset, .. } = *row;
        if self.epoch_is_reused(epoch) {
            return Ok(());
        }
        let life = self.log.lives.iter().find(|life| life.epoch == epoch);
        let life = life.ok_or_else(|| format!("an audit of epoch {epoch}, which never was"))?;
        let log = &life.partitions[usize::from(partition)];
        let (mut counts, mut open) = ([0_u64; 4], 0);
        for entry in log.from(first_offset).iter().take_while(|e| e.offset <= last_offset) {
            self.settled((epoch, partition, entry.offset), entry)?;
            match entry.fate {
                Fate::Stored => counts[0] += 1,
                Fate::Duplicate => counts[1] += 1,
                Fate::Conflict { .. } => counts[2] += 1,
                Fate::DeadLetter => counts[3] += 1,
                Fate::Open => open += 1,
            }
        }
        let told = [row.stored, row.duplicates, row.conflicts, row.dead_letters];
        let records: u64 = told.iter().sum();
        let matches = told.iter().zip(&counts).all(|(told, is)| told >= is)
            && records == counts.iter().sum::<u64>() + open
            && records == row.records
            && (row.stored > 0) == (row.bytes_hash != 0)
            && (row.stored > 0) != row.token.is_empty();
        if matches {
            Ok(())
        } else {
            Err(format!("the audit tells {told:?} for {counts:?} and {open} open: {row:?}"))
        }
    }

    /// What a record had to become is in the store.
    pub(super) fn settled(&self, place: Place, entry: &Entry) -> Check {
        if entry.lost {
            return Ok(());
        }
        if self.epoch_is_reused(place.0) {
            let id = entry.event.map(|event| event.id);
            let stored = id.is_none_or(|id| self.rows_of.contains_key(&id));
            return if stored { Ok(()) } else { Err(format!("no row of the event at {place:?}")) };
        }
        let found = (
            self.store.has_row(place),
            self.store.conflicts.get(&place).copied(),
            self.store.dead_letters.contains(&place),
        );
        let holds = match entry.fate {
            Fate::Stored => found == (true, None, false),
            Fate::Duplicate => found == (false, None, false),
            Fate::Conflict { first } => found == (false, Some(first), false),
            Fate::DeadLetter => found == (false, None, true),
            Fate::Open => !found.2,
        };
        if holds { Ok(()) } else { Err(format!("at {place:?}, {:?} became {found:?}", entry.fate)) }
    }

    /// A commit counts: all that is before it is where it belongs.
    pub(super) fn commit(
        &mut self,
        slot: usize,
        epoch: u16,
        next: &[(PartitionId, Offset)],
    ) -> Check {
        self.line(format_args!("{slot} commits {next:?}"));
        for (partition, next) in next {
            let at = usize::from(*partition);
            let log = self.log.partition(*partition);
            if epoch != self.log.epoch() {
                return Err(format!("a consumer of epoch {epoch} commits"));
            }
            if *next > log.next || self.group.committed[at].is_some_and(|before| before > *next) {
                return Err(format!("{next} of partition {partition} cannot be committed"));
            }
            if self.unseen_losses.contains(partition) {
                return Err(format!("partition {partition} goes on, and its loss is unseen"));
            }
            for entry in log.from(self.verified[at]).iter().take_while(|e| e.offset < *next) {
                self.settled((epoch, *partition, entry.offset), entry)
                    .map_err(|violation| format!("committed {next}, but {violation}"))?;
            }
            self.verified[at] = self.verified[at].max(*next);
            self.group.committed[at] = Some(*next);
        }
        Ok(())
    }

    /// All that was produced is billed once, and nothing else is.
    pub(super) fn judge_end(&self) -> Check {
        for life in &self.log.lives {
            for (partition, log) in (0..).zip(&life.partitions) {
                for entry in &log.entries {
                    self.settled((life.epoch, partition, entry.offset), entry)?;
                }
            }
            if !self.epoch_is_reused(life.epoch) {
                self.judge_side_tables(life.epoch)?;
            }
        }
        self.judge_tiles()?;
        self.judge_bill()
    }

    /// No conflict and no dead letter that was not one.
    fn judge_side_tables(&self, epoch: u16) -> Check {
        let conflicts = self.store.conflicts.keys().map(|place| (place, false));
        let parked = self.store.dead_letters.iter().map(|place| (place, true));
        for (place, is_parked) in conflicts.chain(parked).filter(|(place, _)| place.0 == epoch) {
            let fits = |entry: &Entry| match entry.fate {
                Fate::DeadLetter => is_parked,
                Fate::Conflict { .. } | Fate::Open => !is_parked,
                _ => entry.lost,
            };
            if !self.log.at(*place).any(fits) {
                return Err(format!("the record at {place:?} was put aside"));
            }
        }
        Ok(())
    }

    /// The ranges of the audit leave no gap before what is committed.
    fn judge_tiles(&self) -> Check {
        let epoch = self.log.epoch();
        let current = (0..self.plan.partitions)
            .map(|partition| (epoch, partition, self.log.partition(partition).end()));
        for (epoch, partition, end) in self.ended_lives.iter().copied().chain(current) {
            if self.epoch_is_reused(epoch) {
                continue;
            }
            let mut covered = 0;
            for row in self.store.audit_of(epoch, partition) {
                if row.first_offset > covered && covered < end {
                    return Err(format!("the audit of {partition} has a gap before {row:?}"));
                }
                covered = covered.max(row.last_offset + 1);
            }
            if covered < end {
                return Err(format!("the audit of {partition} ends at {covered}, not at {end}"));
            }
        }
        Ok(())
    }

    /// What a bill is made from equals what the log says, event by event and in all.
    fn judge_bill(&self) -> Check {
        let expected = self.log.billed();
        let mut billed: BTreeMap<u64, &Row> = BTreeMap::new();
        let mut totals = [0_i128; 2];
        for row in self.store.billable() {
            let event = self.log.at(row.place).filter_map(|entry| entry.event);
            let event = event.max_by_key(|event| says_payload(row, *event));
            let event = event.ok_or_else(|| format!("{row:?} is billed"))?;
            let Some(payload) = expected.get(&event.id) else { continue };
            if billed.insert(event.id, row).is_some() || event.payload != *payload {
                return Err(format!("event {event:?} is billed, not payload {payload}"));
            }
            totals[0] += row.units.unwrap_or_default();
        }
        for (id, payload) in &expected {
            if !billed.contains_key(id) {
                return Err(format!("event {id} is not billed"));
            }
            let event = Payload { id: *id, payload: *payload };
            totals[1] += event.units().unwrap_or_default();
        }
        if totals[0] != totals[1] {
            return Err(format!("{totals:?} units are billed and owed"));
        }
        match self.producers.acknowledged.iter().find(|id| self.log.forgot(**id)) {
            Some(id) => Err(format!("event {id} was acknowledged and is not in the log")),
            None => Ok(()),
        }
    }
}

const fn order((epoch, _, offset): Place) -> (u16, Offset) {
    (epoch, offset)
}

/// Whether a row is that of the record.
fn says(row: &Row, event: Payload, entry: &Entry) -> bool {
    says_payload(row, event) && row.accepted_at == instant(entry.accepted_at).timestamp_millis()
}

fn says_payload(row: &Row, event: Payload) -> bool {
    let (organization, scope, transaction) = event.identity();
    let [told_organization, told_scope, told_transaction, customer, ..] = &row.texts;
    [told_organization, told_scope, told_transaction] == [&organization, &scope, &transaction]
        && *customer == event.customer()
        && row.timestamp == event.timestamp()
        && row.units == event.units()
}
