//! ClickHouse as far as it matters: statements that are atomic in each month, tokens within a
//! window, tables that keep one row for each sort key, and merges at any time.

use super::log::Place;
use crate::batch::SealedBatch;
use chrono::{DateTime, Datelike as _, Utc};
use event_log::{Offset, PartitionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use usage_store::{EncodedRows, IngestBatchRow, Position};

/// A row of `usage_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) place: Place,
    /// Organization, scope, transaction id, customer, subscription, code.
    pub(super) texts: [String; 6],
    pub(super) timestamp: i64,
    pub(super) units: Option<i128>,
    pub(super) accepted_at: i64,
    pub(super) hash: [u8; 16],
    pub(super) fingerprint: u64,
    bytes: Vec<u8>,
}

type SortKey<'a> = (&'a [String; 6], i64);

impl Row {
    fn sort_key(&self) -> SortKey<'_> {
        (&self.texts, self.timestamp)
    }

    fn month(&self) -> u32 {
        let at = DateTime::from_timestamp_millis(self.timestamp).expect("of an event");
        at.year().unsigned_abs() * 12 + at.month()
    }
}

/// One INSERT.
#[derive(Clone, Debug)]
pub(super) enum Statement {
    Events { rows: EncodedRows, token: String },
    Conflicts(Vec<(Place, (u16, Offset))>),
    DeadLetters(Vec<Place>),
    Audit(Vec<IngestBatchRow<'static>>),
}

/// What an INSERT did.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Rows at positions that had none.
    pub(super) new_rows: Vec<Row>,
    pub(super) repeated_rows: usize,
    pub(super) dropped_by_token: bool,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Rows by place and identity, each with how many copies of it there are.
    rows: BTreeMap<(Place, [u8; 16]), (Row, u64)>,
    pub(super) conflicts: BTreeMap<Place, (u16, Offset)>,
    pub(super) dead_letters: BTreeSet<Place>,
    /// By the start of the range: of several, the table keeps the longest.
    audit: BTreeMap<Place, IngestBatchRow<'static>>,
    tokens: VecDeque<(String, u32)>,
    token_window: usize,
    /// Until when nothing answers.
    pub(super) away_until: u64,
    /// Rows of the same place differ because two logs had the place.
    pub(super) positions_reused: bool,
}

impl Statement {
    /// The four statements of a batch, in the order of the consumer.
    pub(super) fn of(batch: &SealedBatch, number: usize) -> Option<Self> {
        let place = |position: Position| (position.epoch, position.partition, position.offset);
        let statement = match number {
            0 => Self::Events { rows: batch.rows.clone(), token: batch.token.as_str().to_owned() },
            1 => Self::Conflicts(
                batch
                    .conflicts
                    .iter()
                    .map(|conflict| conflict.row())
                    .map(|row| (place(row.position), (row.first_epoch, row.first_offset)))
                    .collect(),
            ),
            2 => Self::DeadLetters(
                batch.dead_letters.iter().map(|row| place(row.position)).collect(),
            ),
            _ => Self::Audit(batch.audit.clone()),
        };
        (!statement.is_empty()).then_some(statement)
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Events { rows, .. } => rows.rows == 0,
            Self::Conflicts(rows) => rows.is_empty(),
            Self::DeadLetters(rows) => rows.is_empty(),
            Self::Audit(rows) => rows.is_empty(),
        }
    }
}

impl Store {
    pub(super) fn new(token_window: usize) -> Self {
        Self { token_window, ..Self::default() }
    }

    /// Applies a statement; of several months, only those that `lands` says.
    pub(super) fn apply(
        &mut self,
        statement: &Statement,
        lands: impl FnMut(u32) -> bool,
    ) -> Result<Applied, String> {
        match statement {
            Statement::Events { rows, token } => return self.apply_events(rows, token, lands),
            Statement::Conflicts(rows) => self.conflicts.extend(rows.iter().copied()),
            Statement::DeadLetters(rows) => self.dead_letters.extend(rows),
            Statement::Audit(rows) => rows.iter().for_each(|row| self.apply_audit(row)),
        }
        Ok(Applied::default())
    }

    fn apply_events(
        &mut self,
        rows: &EncodedRows,
        token: &str,
        mut lands: impl FnMut(u32) -> bool,
    ) -> Result<Applied, String> {
        let mut months: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        for row in read_rows(&rows.bytes) {
            months.entry(row.month()).or_default().push(row);
        }
        let mut applied = Applied::default();
        for (month, rows) in months {
            let block = (token.to_owned(), month);
            if !lands(month) {
                continue;
            }
            if self.tokens.contains(&block) {
                applied.dropped_by_token = true;
                continue;
            }
            self.tokens.push_back(block);
            if self.tokens.len() > self.token_window {
                self.tokens.pop_front();
            }
            for row in rows {
                self.apply_row(row, &mut applied)?;
            }
        }
        Ok(applied)
    }

    fn apply_row(&mut self, row: Row, applied: &mut Applied) -> Result<(), String> {
        if let Some((known, copies)) = self.rows.get_mut(&(row.place, row.hash)) {
            if *known != row && !self.positions_reused {
                return Err(format!("two rows differ at {:?}: {known:?} and {row:?}", row.place));
            }
            *copies += 1;
            applied.repeated_rows += 1;
        } else {
            applied.new_rows.push(row.clone());
            self.rows.insert((row.place, row.hash), (row, 1));
        }
        Ok(())
    }

    /// A row of the audit that a person has written.
    pub(super) fn accept(&mut self, row: IngestBatchRow<'static>) {
        self.apply_audit(&row);
    }

    fn apply_audit(&mut self, row: &IngestBatchRow<'static>) {
        let place = (row.epoch, row.partition, row.first_offset);
        let kept = self.audit.entry(place).or_insert_with(|| row.clone());
        if kept.last_offset <= row.last_offset {
            kept.clone_from(row);
        }
    }

    /// Merges everything: of the rows with one sort key, the first position stays.
    pub(super) fn merge(&mut self) {
        let kept: BTreeSet<Place> = self.billable().map(|row| row.place).collect();
        self.rows.retain(|(place, _), _| kept.contains(place));
        self.rows.values_mut().for_each(|(_, copies)| *copies = 1);
    }

    /// What a query with FINAL sees.
    pub(super) fn billable(&self) -> impl Iterator<Item = &Row> {
        let mut by_key: BTreeMap<SortKey<'_>, &Row> = BTreeMap::new();
        for (row, _) in self.rows.values() {
            let first = by_key.entry(row.sort_key()).or_insert(row);
            let order = |row: &Row| (row.place.0, row.place.2);
            if order(row) < order(first) {
                *first = row;
            }
        }
        by_key.into_values()
    }

    pub(super) fn has_row(&self, place: Place) -> bool {
        self.rows.range((place, [0; 16])..=(place, [0xff; 16])).next().is_some()
    }

    /// What a rebuild asks for.
    pub(super) fn identities(
        &self,
        epoch: u16,
        partition: PartitionId,
        since: i64,
    ) -> impl Iterator<Item = &Row> {
        self.rows
            .values()
            .map(|(row, _)| row)
            .filter(move |row| row.place.1 == partition && row.place.0 <= epoch)
            .filter(move |row| row.accepted_at >= since)
    }

    pub(super) fn highest_stored(&self, epoch: u16, partition: PartitionId) -> Option<Offset> {
        self.audit_of(epoch, partition).map(|row| row.last_offset).max()
    }

    /// The earliest insert of the newest 100 ranges.
    pub(super) fn recent_insert(
        &self,
        epoch: u16,
        partition: PartitionId,
    ) -> Option<DateTime<Utc>> {
        let newest: Vec<_> = self.audit_of(epoch, partition).map(|row| row.inserted_at).collect();
        newest.into_iter().rev().take(100).min()
    }

    pub(super) fn audit_of(
        &self,
        epoch: u16,
        partition: PartitionId,
    ) -> impl Iterator<Item = &IngestBatchRow<'static>> {
        self.audit
            .range((epoch, partition, 0)..=(epoch, partition, Offset::MAX))
            .map(|(_, row)| row)
    }
}

/// Reads rows of `usage_events` in RowBinary, in code that shares nothing with what wrote them.
fn read_rows(mut bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let start = bytes;
        let texts = std::array::from_fn(|_| text(&mut bytes));
        let timestamp = i64::from_le_bytes(fixed(&mut bytes));
        let units = (fixed::<1>(&mut bytes) == [0]).then(|| i128::from_le_bytes(fixed(&mut bytes)));
        text(&mut bytes);
        let accepted_at = i64::from_le_bytes(fixed(&mut bytes));
        let hash = fixed(&mut bytes);
        let fingerprint = u64::from_le_bytes(fixed(&mut bytes));
        let epoch = u16::from_le_bytes(fixed(&mut bytes));
        let partition = u16::from_le_bytes(fixed(&mut bytes));
        let place = (epoch, partition, u64::from_le_bytes(fixed(&mut bytes)));
        let bytes = start[..start.len() - bytes.len()].to_vec();
        rows.push(Row { place, texts, timestamp, units, accepted_at, hash, fingerprint, bytes });
    }
    rows
}

fn fixed<const LENGTH: usize>(bytes: &mut &[u8]) -> [u8; LENGTH] {
    let (taken, rest) = bytes.split_at(LENGTH);
    *bytes = rest;
    taken.try_into().expect("of this length")
}

fn text(bytes: &mut &[u8]) -> String {
    let (mut length, mut shift) = (0, 0);
    loop {
        let [byte] = fixed(bytes);
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    String::from_utf8(taken.to_vec()).expect("text is UTF-8")
}
