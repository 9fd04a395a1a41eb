//! A batch: what one insert will hold, and one contiguous range of offsets of each partition in it. Pure.

mod months;

use crate::conflict::Conflict;
use crate::dead_letter;
use crate::decode::{Decoded, Source};
use chrono::{DateTime, Utc};
use event_log::{Offset, PartitionId};
use months::Months;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::time::{Duration, Instant};
use usage_store::{DeadLetterRow, EncodedRows, EventRows, IngestBatchRow, InsertToken, Position};

/// When a batch takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most rows, conflicts and dead letters together.
    pub rows: usize,
    /// Bytes of those after which nothing is added; one record may go beyond.
    pub bytes: usize,
    /// Calendar months of the events after which nothing is added: half of what ClickHouse takes.
    pub months: usize,
    /// Time from the first record on after which the batch is sent, full or not.
    pub age: Duration,
}

impl BatchLimits {
    /// What usage-store takes at most.
    pub const ROWS_MAX: usize = usage_store::event_rows::ROWS_MAX;
    /// One record above it still fits into one insert.
    pub const BYTES_MAX: usize = usage_store::event_rows::BYTES_MAX - 2 * 1024 * 1024;
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            rows: Self::ROWS_MAX,
            bytes: 64 * 1024 * 1024,
            months: 50,
            age: Duration::from_secs(1),
        }
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The first copy of its event.
    Stored(Decoded<'a>),
    /// A later copy that says the same.
    Duplicate,
    Conflict(Conflict),
    DeadLetter(DeadLetterRow<'static>),
}

/// How many records became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub stored: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
}

impl Tally {
    pub const fn records(&self) -> u64 {
        self.stored + self.duplicates + self.conflicts + self.dead_letters
    }
}

/// The assignment of a partition that a range belongs to. A partition that was lost and came back
/// has another generation, and what was read before does not count for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure {
    pub partition: PartitionId,
    pub generation: u64,
}

/// The records of a partition in a batch: `[first, next)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub tenure: Tenure,
    pub first: Offset,
    pub next: Offset,
}

#[derive(Debug)]
struct Part {
    range: Range,
    rows: EventRows,
    tally: Tally,
    conflicts: Vec<Conflict>,
    dead_letters: Vec<DeadLetterRow<'static>>,
    /// Bytes of all three.
    bytes: usize,
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Batch {
    limits: BatchLimits,
    parts: BTreeMap<PartitionId, Part>,
    rows: usize,
    bytes: usize,
    months: Months,
    opened_at: Option<Instant>,
    oldest_accepted_at: Option<DateTime<Utc>>,
}

/// A batch that is sent as it is, as often as it takes.
#[derive(Debug)]
pub struct SealedBatch {
    pub rows: EncodedRows,
    pub token: InsertToken,
    pub ranges: Vec<Range>,
    pub conflicts: Vec<Conflict>,
    pub dead_letters: Vec<DeadLetterRow<'static>>,
    pub audit: Vec<IngestBatchRow<'static>>,
    pub tally: Tally,
    pub oldest_accepted_at: Option<DateTime<Utc>>,
}

impl Batch {
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            parts: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            months: Months::default(),
            opened_at: None,
            oldest_accepted_at: None,
        }
    }

    /// Whether it holds no record. A batch of duplicates is not empty: their offsets are to be committed.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it takes no further record.
    pub fn is_full(&self) -> bool {
        self.rows >= self.limits.rows
            || self.bytes >= self.limits.bytes
            || self.months.len() >= self.limits.months
    }

    /// Whether it is to be sent.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full()
            || self.opened_at.is_some_and(|opened| now.duration_since(opened) >= self.limits.age)
    }

    /// Adds the record at `offset`, which follows on everything before `first` in its partition.
    /// `first` counts only for the first record of a partition.
    pub fn add(
        &mut self,
        tenure: Tenure,
        first: Offset,
        position: Position,
        outcome: Outcome<'_>,
        now: Instant,
    ) {
        debug_assert!(!self.is_full(), "a full batch takes no record");
        let empty = Range { tenure, first, next: first };
        let part = self.parts.entry(tenure.partition).or_insert_with(|| Part::new(empty));
        debug_assert_eq!(part.range.tenure, tenure, "an older assignment was abandoned");
        debug_assert!(part.range.next <= position.offset, "offsets ascend");
        let before = part.bytes;
        let rows = part.add(position, outcome, &mut self.months, &mut self.oldest_accepted_at);
        self.rows += rows;
        self.bytes += part.bytes - before;
        self.opened_at.get_or_insert(now);
    }

    /// Drops what was read of a partition that now belongs to somebody else.
    pub fn abandon(&mut self, partition: PartitionId) {
        if let Some(part) = self.parts.remove(&partition) {
            self.rows -= part.rows.len() + part.conflicts.len() + part.dead_letters.len();
            self.bytes -= part.bytes;
        }
        if self.parts.is_empty() {
            *self = Self::new(self.limits);
        }
    }

    /// Takes everything out, as the bytes and rows to send. The rows of a partition stand together.
    pub fn seal(&mut self, source: &Source, at: DateTime<Utc>) -> SealedBatch {
        let Self { parts, oldest_accepted_at, .. } = mem::replace(self, Self::new(self.limits));
        let mut sealed = Sealing::default();
        for part in parts.into_values() {
            sealed.add(part);
        }
        sealed.finish(source, at, oldest_accepted_at)
    }
}

impl Part {
    fn new(range: Range) -> Self {
        let (conflicts, dead_letters) = (Vec::new(), Vec::new());
        Self {
            range,
            rows: EventRows::default(),
            tally: Tally::default(),
            conflicts,
            dead_letters,
            bytes: 0,
        }
    }

    /// Returns how many rows of any kind were added.
    fn add(
        &mut self,
        position: Position,
        outcome: Outcome<'_>,
        months: &mut Months,
        oldest: &mut Option<DateTime<Utc>>,
    ) -> usize {
        self.range.next = position.offset + 1;
        match outcome {
            Outcome::Stored(Decoded { event, identity, fingerprint }) => {
                let before = self.rows.byte_len();
                self.rows.push(&event, position, identity, fingerprint);
                self.bytes += self.rows.byte_len() - before;
                self.tally.stored += 1;
                months.insert(event.timestamp);
                *oldest =
                    Some(oldest.map_or(event.accepted_at, |oldest| oldest.min(event.accepted_at)));
            }
            Outcome::Duplicate => {
                self.tally.duplicates += 1;
                return 0;
            }
            Outcome::Conflict(conflict) => {
                self.bytes += conflict.byte_len();
                self.tally.conflicts += 1;
                self.conflicts.push(conflict);
            }
            Outcome::DeadLetter(row) => {
                self.bytes += dead_letter::byte_len(&row);
                self.tally.dead_letters += 1;
                self.dead_letters.push(row);
            }
        }
        1
    }
}

#[derive(Default)]
struct Sealing {
    encoded: Vec<EncodedRows>,
    ranges: Vec<(Range, Tally)>,
    conflicts: Vec<Conflict>,
    dead_letters: Vec<DeadLetterRow<'static>>,
}

impl Sealing {
    fn add(&mut self, part: Part) {
        let Part { range, rows, tally, conflicts, dead_letters, bytes: _ } = part;
        if !rows.is_empty() {
            self.encoded.push(rows.finish());
        }
        self.ranges.push((range, tally));
        self.conflicts.extend(conflicts);
        self.dead_letters.extend(dead_letters);
    }

    fn finish(
        self,
        source: &Source,
        at: DateTime<Utc>,
        oldest_accepted_at: Option<DateTime<Utc>>,
    ) -> SealedBatch {
        let Self { encoded, ranges, conflicts, dead_letters } = self;
        let rows = joined(encoded);
        let named: Vec<_> = ranges
            .iter()
            .map(|(range, _)| (range.tenure.partition, range.first, range.next - 1))
            .collect();
        let token = InsertToken::new(&source.topic, &named, &rows.bytes);
        let audit = ranges
            .iter()
            .map(|(range, tally)| audit_row(source, range, tally, (&rows, &token), at))
            .collect();
        let mut tally = Tally::default();
        for (_, part) in &ranges {
            tally.stored += part.stored;
            tally.duplicates += part.duplicates;
            tally.conflicts += part.conflicts;
            tally.dead_letters += part.dead_letters;
        }
        let ranges = ranges.into_iter().map(|(range, _)| range).collect();
        SealedBatch {
            rows,
            token,
            ranges,
            conflicts,
            dead_letters,
            audit,
            tally,
            oldest_accepted_at,
        }
    }
}

fn joined(mut encoded: Vec<EncodedRows>) -> EncodedRows {
    if encoded.len() == 1 {
        return encoded.remove(0);
    }
    let mut bytes = Vec::with_capacity(encoded.iter().map(|part| part.bytes.len()).sum());
    for part in &encoded {
        bytes.extend_from_slice(&part.bytes);
    }
    EncodedRows { bytes: bytes.into(), rows: encoded.iter().map(|part| part.rows).sum() }
}

fn audit_row(
    source: &Source,
    range: &Range,
    tally: &Tally,
    (rows, token): (&EncodedRows, &InsertToken),
    at: DateTime<Utc>,
) -> IngestBatchRow<'static> {
    let stored_some = tally.stored > 0;
    IngestBatchRow {
        topic: Cow::Owned(source.topic.clone()),
        epoch: source.epoch,
        partition: range.tenure.partition,
        first_offset: range.first,
        last_offset: range.next - 1,
        records: tally.records(),
        stored: tally.stored,
        duplicates: tally.duplicates,
        conflicts: tally.conflicts,
        dead_letters: tally.dead_letters,
        bytes_hash: if stored_some { rows.hash() } else { 0 },
        token: if stored_some { Cow::Owned(token.as_str().to_owned()) } else { Cow::Borrowed("") },
        inserted_at: at,
    }
}

#[cfg(test)]
mod tests;
