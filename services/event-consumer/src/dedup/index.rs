//! The exact index of one partition: which events were seen, and where their first copies are.
//!
//! It is a function of the log before the next record and nothing else, so it can be cut back,
//! dropped and rebuilt at any time.

use super::ages::Ages;
use super::table::{Entry, SHARDS, Table};
use super::{Place, PositionOrder};
use chrono::{DateTime, Utc};
use event_log::Offset;
use fault_injection::{Sabotage, sabotaged};
use metering::IdentityHash;
use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

/// How many of the latest ids [`Sabotage::BoundedSeenSet`] remembers; no more than that.
const SEEN_SET_IDS: u64 = 128;

/// One copy of an event.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub hash: IdentityHash,
    pub place: Place,
    /// Hash of what the producer said, identity apart. Only its low 40 bits are compared.
    pub fingerprint: u64,
    /// When the API accepted it, and not after the time now.
    pub accepted_at: DateTime<Utc>,
    /// The time now, since when it is remembered: an API whose clock was behind must not shorten the
    /// horizon of an event.
    pub decided_at: DateTime<Utc>,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen before.
    First,
    /// The first copy, read once more: it is stored again, as the same bytes.
    Replay,
    /// A later copy that says the same.
    Duplicate,
    /// A later copy that says something else than the one at `first`, of whose fingerprint the low 40 bits are known.
    Conflict { first: Place, first_fingerprint: u64 },
    /// The log does not hold what it held before: the first copy is known to stand at `known`.
    Impossible { known: Place },
}

/// The first copies of a partition, as far back as the horizon at least.
#[derive(Debug)]
pub struct PartitionIndex {
    order: PositionOrder,
    tables: Vec<Table>,
    len: usize,
    allocated: usize,
    forget_below: Place,
    ages: Ages,
    /// The place of the copy that was decided last, and when it was accepted. What is to come may be
    /// as old.
    latest: Option<(Place, DateTime<Utc>)>,
    /// The place of the copy that was decided last when ids were last let go.
    forgot_at: Place,
}

impl PartitionIndex {
    /// An index that has seen nothing, for a log of the epoch of `order`.
    pub fn new(order: PositionOrder) -> Self {
        Self {
            order,
            tables: vec![Table::default(); SHARDS],
            len: 0,
            allocated: 0,
            forget_below: Place::FIRST,
            ages: Ages::default(),
            latest: None,
            forgot_at: Place::FIRST,
        }
    }

    /// The index of these tables, which nothing was decided with yet.
    pub(super) fn of_tables(order: PositionOrder, tables: Vec<Table>, ages: Ages) -> Self {
        let mut index = Self { tables, ages, ..Self::new(order) };
        index.measure();
        index
    }

    pub fn order(&self) -> PositionOrder {
        self.order
    }

    /// Ids that are remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory in bytes, empty slots included.
    pub fn allocated_bytes(&self) -> usize {
        self.allocated + SHARDS * size_of::<Table>() + self.ages.allocated_bytes()
    }

    /// What `copy` is; a first copy is remembered.
    pub fn decide(&mut self, copy: &Copy) -> Verdict {
        self.latest = Some((copy.place, copy.accepted_at));
        let entry = Entry::new(copy.hash, copy.place, copy.fingerprint);
        let Some(known) = self.find_or_insert(entry, copy.decided_at) else {
            return Verdict::First;
        };
        if sabotaged(Sabotage::BoundedSeenSet) && known.place() < copy.place.back(SEEN_SET_IDS) {
            return Verdict::First;
        }
        let same = known.fingerprint() == entry.fingerprint();
        match (known.place().cmp(&copy.place), same) {
            (Ordering::Equal, true) => Verdict::Replay,
            (Ordering::Less, true) => Verdict::Duplicate,
            (Ordering::Less, false) => {
                Verdict::Conflict { first: known.place(), first_fingerprint: known.fingerprint() }
            }
            (Ordering::Equal, false) | (Ordering::Greater, _) => {
                Verdict::Impossible { known: known.place() }
            }
        }
    }

    /// Lets go of ids that were accepted more than `horizon` before the copy that was decided last.
    /// Not before now: the copies to come may have waited in the log for long.
    pub fn forget_beyond(&mut self, horizon: Duration) {
        if let Some((place, at)) = self.latest {
            let before = self.forget_below;
            self.forget_before(at - horizon);
            if self.forget_below > before {
                self.forgot_at = place;
            }
        }
    }

    /// They stay until memory is needed, and ids accepted up to an hour before it stay as well.
    fn forget_before(&mut self, horizon_start: DateTime<Utc>) {
        self.forget_below = self.forget_below.max(self.ages.advance(horizon_start));
    }

    /// Frees the memory of the ids that were let go.
    pub fn sweep(&mut self) {
        let below = self.forget_below;
        self.rebuild_tables(|place| place >= below);
    }

    /// Whether the records from `next` on can be decided once more. Not when ids were let go after one
    /// of them was decided: an earlier one may be a copy of those.
    pub fn can_be_cut_back(&self, next: Offset) -> bool {
        self.order.current(next) > self.forgot_at
    }

    /// Forgets the records of `decided`, as if they had not been read yet. What the store has told of
    /// later ones stays: in the log that it was filled from it will be met again.
    pub fn cut_back(&mut self, decided: Range<Offset>) {
        let cut = self.order.current(decided.start)..self.order.current(decided.end);
        self.forget_below = self.forget_below.min(cut.start);
        self.latest = None;
        let below = self.forget_below;
        self.rebuild_tables(|place| place >= below && !cut.contains(&place));
    }

    fn find_or_insert(&mut self, entry: Entry, since: DateTime<Utc>) -> Option<Entry> {
        let below = self.forget_below;
        let table = &mut self.tables[entry.shard()];
        let (len, bytes) = (table.len(), table.allocated_bytes());
        let known = table.find_or_insert(entry, |place| place >= below);
        let (new_len, new_bytes) = (table.len(), table.allocated_bytes());
        if known.is_none() {
            self.len = self.len - len + new_len;
            self.allocated = self.allocated - bytes + new_bytes;
            self.ages.note(since, entry.place());
        }
        known
    }

    fn rebuild_tables(&mut self, keep: impl Fn(Place) -> bool) {
        for table in &mut self.tables {
            table.rebuild(&keep);
        }
        self.measure();
    }

    fn measure(&mut self) {
        self.len = self.tables.iter().map(Table::len).sum();
        self.allocated = self.tables.iter().map(Table::allocated_bytes).sum();
    }
}

#[cfg(test)]
mod tests;
