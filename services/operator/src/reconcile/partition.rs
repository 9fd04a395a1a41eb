//! Compares the records of one partition with the rows that should stand for them, place by place. Pure.
//!
//! The log does not say which copy of an event is a repeat. A row at a record's own place says that it
//! is the billed one; a record without a row must be a later copy of a billed event.

use super::audit::{Became, Records};
use super::content::ContentHash;
use super::copies::{COPY_BYTES, Copies, Row, Settled};
use super::findings::{Check, Findings};
use super::table::{LineId, Table};
use chrono::{DateTime, Utc};
use event_consumer::decode::{Decoded, NoRow, Source, decode};
use event_log::{FetchedRecord, Offset, PartitionId, wire};
use metering::UsageEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use usage_store::Position;
use usage_store::conservation::{FirstCopy, StoredConflict, StoredEvent};
use usage_store::reused_ids::key_of;

/// Bytes for each record of the range: the row's hash, what became of it, whether it has a row, and what it
/// is a copy of.
const RECORD_BYTES: u64 = 8 + 1 + 1 + COPY_BYTES;
/// Bytes for each record that is kept beside, at most.
const ASIDE_BYTES: u64 = 64;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    pub source: Source,
    pub partition: PartitionId,
    /// Events accepted in it are compared; somewhat longer than the period.
    pub window: Range<DateTime<Utc>>,
    /// The offsets whose records are read.
    pub offsets: Range<Offset>,
    /// The offsets appended within the period: those of records that do not say when they were accepted.
    pub appended: Range<Offset>,
    /// What the log holds.
    pub log: Range<Offset>,
    pub organization: Option<String>,
    /// Epoch, offset and key of rows that are not billed, because another one of their id hides them.
    pub hidden: BTreeSet<(u16, Offset, u64)>,
}

/// Bytes that the comparison of `records` records takes before it has seen anything.
pub fn bytes(records: u64) -> u64 {
    records.saturating_mul(RECORD_BYTES)
}

impl Scope {
    fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.source.epoch, partition: self.partition, offset }
    }

    fn concerns(&self, organization: &str) -> bool {
        self.organization.as_deref().is_none_or(|only| only == organization)
    }
}

/// Records that say of no organization: they are no events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    pub accepted: u64,
    pub parked: u64,
}

/// A row of the period whose record stands outside of what is read: its record is read by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Far {
    pub offset: Offset,
    pub short: u64,
}

/// What the results of all partitions go into.
#[derive(Debug)]
pub struct Results {
    pub table: Table,
    pub findings: Findings,
    pub unreadable: Unreadable,
}

/// A partition that is being compared: first all rows, then all records, then what is left over.
#[derive(Debug)]
pub struct PartitionCheck<'a> {
    scope: &'a Scope,
    results: &'a mut Results,
    /// For each offset the hash of its billable row that was not met in the log yet, or zero.
    rows: Vec<u64>,
    became: Vec<Became>,
    conflicts: BTreeSet<Offset>,
    parked: BTreeSet<Offset>,
    copies: Copies,
    /// The hashes of rows of the period whose records stand elsewhere.
    far: BTreeMap<Offset, u64>,
    /// Rows of the period that stand behind the end of the log.
    behind: BTreeSet<Offset>,
    /// Rows of the period that the log is too young for.
    without_log: BTreeSet<(u16, Offset)>,
    /// How many are kept beside the range, or would be if there was room.
    aside: u64,
    /// Bytes that there are for them and for the history.
    aside_max: u64,
    later_epoch: Option<u16>,
    key: Vec<u8>,
}

impl<'a> PartitionCheck<'a> {
    /// `aside_max` are the bytes that there are beyond [`bytes`]. When they are used up nothing more is
    /// kept, and [`Self::bytes_aside`] says how many it would take: then the check is worth nothing.
    pub fn new(scope: &'a Scope, results: &'a mut Results, aside_max: u64) -> Self {
        let length = usize::try_from(scope.offsets.end - scope.offsets.start)
            .expect("the range was found to fit the memory");
        Self {
            rows: vec![0; length],
            became: vec![Became::Nothing; length],
            conflicts: BTreeSet::new(),
            parked: BTreeSet::new(),
            copies: Copies::with_capacity(length),
            far: BTreeMap::new(),
            behind: BTreeSet::new(),
            without_log: BTreeSet::new(),
            aside: 0,
            aside_max,
            later_epoch: None,
            key: Vec::with_capacity(256),
            scope,
            results,
        }
    }

    /// Bytes of what is kept beside the range.
    pub fn bytes_aside(&self) -> u64 {
        (self.aside * ASIDE_BYTES).saturating_add(self.copies.history_bytes())
    }

    /// Counts one more that is kept beside. Whether there is room for it.
    fn room_aside(&mut self) -> bool {
        self.aside += 1;
        self.bytes_aside() <= self.aside_max
    }

    /// A record or a row of a later life of the topic than the configured one.
    pub fn later_epoch(&self) -> Option<u16> {
        self.later_epoch
    }

    /// Rows of the period whose records stand elsewhere in the log.
    pub fn far(&self) -> impl ExactSizeIterator<Item = Far> {
        self.far.iter().map(|(offset, short)| Far { offset: *offset, short: *short })
    }

    /// `(epoch, offset)` of rows of the period whose records the log no longer has.
    pub fn take_without_log(&mut self) -> BTreeSet<(u16, Offset)> {
        std::mem::take(&mut self.without_log)
    }

    /// Takes a row that was accepted within the window. A copy of one that was taken changes nothing.
    pub fn row(&mut self, row: &StoredEvent<'_>) {
        let Position { epoch, partition: _, offset } = row.position;
        if self.scope.hidden.contains(&(epoch, offset, row.identity_key)) {
            return;
        }
        let content = ContentHash::of_row(row);
        let current = epoch == self.scope.source.epoch;
        let line = self.results.table.line(&row.organization_id, row.accepted_at);
        if current && self.scope.offsets.contains(&offset) {
            let at = self.index_of(offset);
            let known = std::mem::replace(&mut self.rows[at], content.short());
            if known != content.short() {
                self.taken_after(known != 0, offset);
                self.billed(line, &content);
            }
            return;
        }
        let Some(line) = line else { return };
        if epoch > self.scope.source.epoch {
            self.later_epoch = Some(epoch);
        } else if !current || offset < self.scope.log.start {
            self.row_without_log(line, (epoch, offset));
        } else if offset >= self.scope.log.end {
            if !self.behind.contains(&offset) && self.room_aside() {
                self.behind.insert(offset);
                self.billed(Some(line), &content);
                self.extra(offset, "the row stands behind the end of the log");
            }
        } else if self.far.get(&offset) != Some(&content.short()) && self.room_aside() {
            let known = self.far.insert(offset, content.short());
            self.taken_after(known.is_some(), offset);
            self.billed(Some(line), &content);
        }
    }

    fn row_without_log(&mut self, line: LineId, place: (u16, Offset)) {
        if !self.without_log.contains(&place) && self.room_aside() {
            self.without_log.insert(place);
            self.results.table.at(line).billed_without_log += 1;
        }
    }

    /// Takes note of a row at `offset`, perhaps after another one.
    fn taken_after(&mut self, another: bool, offset: Offset) {
        if another {
            self.extra(offset, "a second row has this position, and says something else");
        }
    }

    /// Takes a row of the refused copies.
    pub fn conflict(&mut self, row: &StoredConflict<'_>) {
        if self.room_aside() {
            self.conflicts.insert(row.offset);
        }
        if let Some(line) = self.results.table.line(&row.organization_id, row.accepted_at) {
            self.results.table.at(line).conflicts += 1;
        }
    }

    /// Takes the place of a parked record.
    pub fn parked(&mut self, offset: Offset) {
        if self.room_aside() {
            self.parked.insert(offset);
        }
    }

    /// Takes the next record of the log.
    pub fn record(&mut self, record: &FetchedRecord<'_>) {
        let mut key = std::mem::take(&mut self.key);
        match decode(&self.scope.source, self.scope.partition, record, &mut key) {
            Ok(decoded) => self.event(record.offset, &decoded),
            Err(NoRow::Refused(refused)) => self.no_event(record, refused.reason),
            Err(NoRow::LaterEpoch(epoch)) => self.later_epoch = Some(epoch),
        }
        self.key = key;
    }

    fn no_event(&mut self, record: &FetchedRecord<'_>, reason: &str) {
        let at = self.index_of(record.offset);
        self.became[at] = Became::Parked;
        let parked = self.parked.remove(&record.offset);
        // Of some, such as those under a wrong key, it is known whose they are.
        match wire::decode(record.value) {
            Ok((event, _)) => {
                if !self.scope.concerns(&event.organization_id) {
                    return;
                }
                if let Some(line) =
                    self.results.table.line(&event.organization_id, event.accepted_at)
                {
                    let line = self.results.table.at(line);
                    line.accepted += 1;
                    line.parked += u64::from(parked);
                }
            }
            Err(_) if self.scope.appended.contains(&record.offset) => {
                self.results.unreadable.accepted += 1;
                self.results.unreadable.parked += u64::from(parked);
            }
            Err(_) => {}
        }
        if !parked {
            let detail =
                format!("the record is no event ({reason}), and dead_letters does not have it");
            self.results.findings.add(
                Check::RecordsParked,
                self.scope.position(record.offset),
                detail,
            );
        }
    }

    fn event(&mut self, offset: Offset, decoded: &Decoded<'_>) {
        let Decoded { event, identity, fingerprint } = decoded;
        let at = self.index_of(offset);
        if !self.scope.concerns(&event.organization_id) {
            self.became[at] = Became::Unseen;
            return;
        }
        let line = self.results.table.line(&event.organization_id, event.accepted_at);
        if let Some(line) = line {
            self.results.table.at(line).accepted += 1;
        }
        self.copies.push(identity.0, at, *fingerprint, line);
        if self.rows[at] != 0 {
            self.became[at] = Became::Stored;
            self.compare(offset, event, line);
        } else if self.scope.window.contains(&event.accepted_at) {
            // Until it is known what it is a copy of.
            self.became[at] = Became::Duplicate;
        } else {
            self.became[at] = Became::Unseen;
            self.conflicts.remove(&offset);
        }
    }

    /// Compares a record with the row at its place, which is thereby met.
    fn compare(&mut self, offset: Offset, event: &UsageEvent<'_>, line: Option<LineId>) {
        let content = ContentHash::of_event(event);
        let at = self.index_of(offset);
        if std::mem::take(&mut self.rows[at]) != content.short() {
            let detail = "the billed row does not say what the record says";
            self.results.findings.add(Check::ContentUnchanged, self.scope.position(offset), detail);
        }
        if let Some(line) = line {
            self.results.table.at(line).log_hash.add(&content);
        }
        if self.conflicts.remove(&offset) {
            let detail = "the event is billed and set aside as a conflict";
            self.results.findings.add(Check::ConflictsKept, self.scope.position(offset), detail);
        }
    }

    /// Brings the copies of each event together, once all records were taken. The keys of the events for
    /// whose earlier copies the store has to be asked, `most` of them at most.
    pub fn history_keys(&mut self, most: usize) -> Vec<u64> {
        self.copies.sort();
        let became = &self.became;
        let identities = self.copies.in_need_of_history(|at| row(became[at]));
        identities.take(most).map(key_of).collect()
    }

    /// Takes a stored event of any time.
    pub fn history(&mut self, stored: &FirstCopy) {
        if self.bytes_aside() > self.aside_max {
            return;
        }
        let start = (self.scope.source.epoch, self.scope.offsets.start);
        self.copies.history(stored.hash, (stored.epoch, stored.offset), stored.fingerprint, start);
    }

    /// Takes the record of a far row, if the log has it.
    pub fn far_record(&mut self, far: Far, record: Option<&FetchedRecord<'_>>) {
        let decoded = record.and_then(|record| wire::decode(record.value).ok());
        let Some((event, _)) = decoded else {
            self.extra(far.offset, "there is no event at this place of the log");
            return;
        };
        let content = ContentHash::of_event(&event);
        if content.short() != far.short {
            let detail = "the billed row does not say what the record says";
            self.results.findings.add(
                Check::ContentUnchanged,
                self.scope.position(far.offset),
                detail,
            );
        }
        if let Some(line) = self.results.table.line(&event.organization_id, event.accepted_at) {
            let line = self.results.table.at(line);
            line.accepted += 1;
            line.log_hash.add(&content);
        }
    }

    /// Settles the records without rows. Whether some are missing, so that their content is asked for.
    pub fn settle(&mut self) -> bool {
        let copies = std::mem::replace(&mut self.copies, Copies::with_capacity(0));
        let rows: Vec<Row> = self.became.iter().map(|became| row(*became)).collect();
        let mut missing = false;
        copies.settle(
            |at| rows[at],
            |at, line, what| {
                let offset = self.offset_of(at);
                let kept = self.conflicts.remove(&offset);
                match what {
                    Settled::Missing => self.missing(offset, kept),
                    Settled::Repeat => self.repeat(offset, line, kept),
                    Settled::Conflict => self.changed(offset, kept),
                }
                missing |= what == Settled::Missing;
            },
        );
        missing
    }

    /// Takes a record once more, for the content of those that are missing.
    pub fn missing_record(&mut self, record: &FetchedRecord<'_>) {
        if self.became[self.index_of(record.offset)] != Became::Missing {
            return;
        }
        if let Ok((event, _)) = wire::decode(record.value)
            && let Some(line) = self.results.table.line(&event.organization_id, event.accepted_at)
        {
            self.results.table.at(line).log_hash.add(&ContentHash::of_event(&event));
        }
    }

    /// Reports the rows without records.
    pub fn finish(mut self) -> Records {
        for at in 0..self.rows.len() {
            if self.rows[at] != 0 {
                let offset = self.offset_of(at);
                self.extra(offset, "there is no event at this place of the log");
            }
        }
        for offset in std::mem::take(&mut self.conflicts) {
            let detail = "set aside as a conflict, and the log has no such copy there";
            self.results.findings.add(Check::ConflictsKept, self.scope.position(offset), detail);
        }
        for offset in std::mem::take(&mut self.parked) {
            let detail = "parked as no event, and the log has no such record there";
            self.results.findings.add(Check::RecordsParked, self.scope.position(offset), detail);
        }
        Records {
            epoch: self.scope.source.epoch,
            partition: self.scope.partition,
            first: self.scope.offsets.start,
            became: self.became,
            log_is_gone: false,
        }
    }

    /// No row, and no earlier copy: the event should have been billed.
    fn missing(&mut self, offset: Offset, kept: bool) {
        let at = self.index_of(offset);
        self.became[at] = Became::Missing;
        let detail = "accepted, not billed, and no copy of an earlier event";
        self.results.findings.add(Check::EveryEventBilled, self.scope.position(offset), detail);
        if kept {
            let detail = "set aside as a conflict although it is the first copy";
            self.results.findings.add(Check::ConflictsKept, self.scope.position(offset), detail);
        }
    }

    fn repeat(&mut self, offset: Offset, line: Option<LineId>, kept: bool) {
        let at = self.index_of(offset);
        self.became[at] = Became::Duplicate;
        if kept {
            // It is counted with the conflicts.
            let detail = "set aside as a conflict although it says the same as the billed copy";
            self.results.findings.add(Check::ConflictsKept, self.scope.position(offset), detail);
        } else if let Some(line) = line {
            self.results.table.at(line).repeats += 1;
        }
    }

    fn changed(&mut self, offset: Offset, kept: bool) {
        let at = self.index_of(offset);
        self.became[at] = Became::Conflict;
        if !kept {
            let detail = "says something else than the billed copy, and is not kept anywhere";
            self.results.findings.add(Check::ConflictsKept, self.scope.position(offset), detail);
        }
    }

    fn billed(&mut self, line: Option<LineId>, content: &ContentHash) {
        if let Some(line) = line {
            let line = self.results.table.at(line);
            line.billed += 1;
            line.store_hash.add(content);
        }
    }

    fn extra(&mut self, offset: Offset, detail: &'static str) {
        self.results.findings.add(Check::NothingElseBilled, self.scope.position(offset), detail);
    }

    fn offset_of(&self, at: usize) -> Offset {
        self.scope.offsets.start + u64::try_from(at).expect("an index fits 64 bits")
    }

    fn index_of(&self, offset: Offset) -> usize {
        usize::try_from(offset - self.scope.offsets.start).expect("the range fits the memory")
    }
}

/// Whether a record that is an event has a row.
fn row(became: Became) -> Row {
    match became {
        Became::Stored => Row::Billed,
        Became::Unseen => Row::Unknown,
        _ => Row::None,
    }
}

#[cfg(test)]
mod tests;
