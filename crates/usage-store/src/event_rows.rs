//! Encodes usage events into the bytes of one INSERT. A row is a pure function of its log record.

use crate::row_binary::{LENGTH_BYTES_MAX, put_bytes, put_instant, put_quantity, put_u16, put_u64};
use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Months, NaiveTime, Utc};
use metering::{IdentityHash, UsageEvent};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Most rows of one INSERT. ClickHouse cuts an INSERT into blocks at about a million rows, and only
/// a block is atomic; far below that, larger inserts gain nothing.
pub const ROWS_MAX: usize = 100_000;
/// Most bytes of one INSERT, in RowBinary. It bounds the memory of an insert on the server, which
/// holds the block twice while it sorts it, and stays below the 256 MiB at which a server may cut
/// a block, where a row takes up to twice its bytes here.
pub const BYTES_MAX: usize = 96 * 1024 * 1024;
/// Most months (of `timestamp`) in one INSERT, each a partition of the table. ClickHouse refuses an
/// INSERT of more than `max_partitions_per_insert_block`, 100 by default.
pub const MONTHS_MAX: usize = 100;
/// Log offsets are below this: the row version holds the topic epoch in the 16 bits above.
pub const OFFSET_LIMIT: u64 = 1 << 48;

/// The bytes of a row besides its strings: 2 instants, 1 quantity, 1 hash, 2 UInt64, 2 UInt16.
const FIXED_BYTES: usize = 8 + 8 + 17 + 16 + 8 + 8 + 2 + 2;
const STRINGS: usize = 7;

/// Where in the log a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The generation of the topic; rises when the topic is created anew.
    pub epoch: u16,
    pub partition: u16,
    pub offset: u64,
}

/// Rows of `usage_events` that are being encoded.
#[derive(Debug, Default)]
pub struct EventRows {
    out: Vec<u8>,
    rows: usize,
    months: MonthSet,
}

/// The rows of one INSERT. Cloning shares the bytes, so that a retry sends the very same ones.
#[derive(Clone, Debug)]
pub struct EncodedRows {
    pub bytes: Bytes,
    pub rows: usize,
}

impl EncodedRows {
    /// XXH3-64 of the bytes, for `ingest_batches`.
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.bytes)
    }
}

impl EventRows {
    /// Rows with room for `bytes` of RowBinary.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn byte_len(&self) -> usize {
        self.out.len()
    }

    /// Whether `event` still fits into this INSERT. A single event always fits into an empty one.
    pub fn has_room_for(&self, event: &UsageEvent<'_>) -> bool {
        self.rows < ROWS_MAX
            && self.out.len() + encoded_len_max(event) <= BYTES_MAX
            && (self.months.len() < MONTHS_MAX
                || self.months.contains(event.timestamp.timestamp_millis()))
    }

    /// Appends the row of an accepted event. `identity` and `fingerprint` are the event's own.
    ///
    /// # Panics
    /// When there is no room ([`Self::has_room_for`]), or the event or position is out of the range
    /// that decoding a record leaves: years 1970 to 2299, offsets below 2⁴⁸.
    pub fn push(
        &mut self,
        event: &UsageEvent<'_>,
        position: Position,
        identity: IdentityHash,
        fingerprint: u64,
    ) {
        assert!(self.has_room_for(event), "the batch is cut before an INSERT is full");
        assert!(position.offset < OFFSET_LIMIT, "the row version holds 48 bits of the offset");
        self.months.insert(event.timestamp);
        self.rows += 1;
        let out = &mut self.out;
        put_event(out, event);
        out.extend_from_slice(&identity.0);
        put_u64(out, fingerprint);
        put_u16(out, position.epoch);
        put_u16(out, position.partition);
        put_u64(out, position.offset);
    }

    pub fn finish(self) -> EncodedRows {
        EncodedRows { bytes: self.out.into(), rows: self.rows }
    }
}

/// The columns that `usage_events` and `usage_event_conflicts` begin with.
pub(crate) fn put_event(out: &mut Vec<u8>, event: &UsageEvent<'_>) {
    let UsageEvent {
        organization_id,
        transaction_scope,
        transaction_id,
        external_customer_id,
        external_subscription_id,
        code,
        timestamp,
        value,
        properties,
        accepted_at,
    } = event;
    assert_storable(*timestamp);
    assert_storable(*accepted_at);
    for text in [
        organization_id,
        transaction_scope,
        transaction_id,
        external_customer_id,
        external_subscription_id,
        code,
    ] {
        put_bytes(out, text.as_bytes());
    }
    put_instant(out, *timestamp);
    put_quantity(out, *value);
    put_bytes(out, properties.as_str().as_bytes());
    put_instant(out, *accepted_at);
}

/// Upper bound of the bytes that [`EventRows::push`] appends for `event`.
fn encoded_len_max(event: &UsageEvent<'_>) -> usize {
    event.organization_id.len()
        + event.transaction_scope.len()
        + event.transaction_id.len()
        + event.external_customer_id.len()
        + event.external_subscription_id.len()
        + event.code.len()
        + event.properties.as_str().len()
        + STRINGS * LENGTH_BYTES_MAX
        + FIXED_BYTES
}

/// `DateTime64` holds 1900 to 2299, and ClickHouse rounds hours before 1970 wrongly (docs/billing-queries.md).
fn assert_storable(instant: DateTime<Utc>) {
    const END_OF_2299: i64 = 10_413_792_000_000;
    let millis = instant.timestamp_millis();
    assert!((0..END_OF_2299).contains(&millis), "decoding leaves only the years 1970 to 2299");
}

/// The calendar months (UTC) of the rows so far, as ranges of milliseconds since 1970.
#[derive(Debug, Default)]
struct MonthSet {
    /// The month that was met last is at the end: events come roughly in order of time.
    ranges: Vec<Range<i64>>,
}

impl MonthSet {
    fn len(&self) -> usize {
        self.ranges.len()
    }

    fn contains(&self, millis: i64) -> bool {
        self.ranges.iter().rev().any(|month| month.contains(&millis))
    }

    fn insert(&mut self, instant: DateTime<Utc>) {
        let millis = instant.timestamp_millis();
        match self.ranges.iter().rposition(|month| month.contains(&millis)) {
            Some(found) => {
                let last = self.ranges.len() - 1;
                self.ranges.swap(found, last);
            }
            None => self.ranges.push(month_of(instant)),
        }
    }
}

fn month_of(instant: DateTime<Utc>) -> Range<i64> {
    let first = instant.date_naive().with_day(1).expect("every month has a first day");
    let next = first.checked_add_months(Months::new(1)).expect("the year is at most 2299");
    let millis = |day: chrono::NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    millis(first)..millis(next)
}

#[cfg(test)]
mod tests;
