//! Rows of the tables beside `usage_events`: conflicts, dead letters and the audit of batches.

use crate::event_rows::{Position, put_event};
use crate::row_binary::{put_bytes, put_instant, put_u16, put_u64};
use chrono::{DateTime, Utc};
use metering::UsageEvent;
use std::borrow::Cow;

/// Longest record key that is parked, in bytes; the rest is cut off.
pub const DEAD_LETTER_KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest record value that is parked, in bytes; the rest is cut off.
pub const DEAD_LETTER_VALUE_BYTES_MAX: usize = 1024 * 1024;

/// A later copy of an accepted event, with another payload.
#[derive(Clone, Debug)]
pub struct ConflictRow<'a> {
    /// The refused copy.
    pub event: UsageEvent<'a>,
    pub payload_fingerprint: u64,
    pub position: Position,
    /// The accepted copy, which is in the same partition.
    pub first_epoch: u16,
    pub first_offset: u64,
    pub first_payload_fingerprint: u64,
}

/// A record of the log that is no usage event.
#[derive(Clone, Debug)]
pub struct DeadLetterRow<'a> {
    pub topic: Cow<'a, str>,
    pub position: Position,
    /// A stable code.
    pub reason: Cow<'a, str>,
    /// One sentence.
    pub detail: Cow<'a, str>,
    pub key: Cow<'a, [u8]>,
    pub value: Cow<'a, [u8]>,
    pub parked_at: DateTime<Utc>,
}

/// What became of the records of one partition in one batch.
#[derive(Clone, Debug)]
pub struct IngestBatchRow<'a> {
    pub topic: Cow<'a, str>,
    pub epoch: u16,
    pub partition: u16,
    pub first_offset: u64,
    /// Inclusive.
    pub last_offset: u64,
    /// Records read from the log in the range: the sum of the four below.
    pub records: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
    /// [`crate::EncodedRows::hash`] of the insert that holds the rows of the range; 0 if none was stored.
    pub bytes_hash: u64,
    /// [`crate::InsertToken`] of that insert; empty if none was stored.
    pub token: Cow<'a, str>,
    pub inserted_at: DateTime<Utc>,
}

impl ConflictRow<'_> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Self {
            event,
            payload_fingerprint,
            position,
            first_epoch,
            first_offset,
            first_payload_fingerprint,
        } = self;
        put_event(out, event);
        put_u64(out, *payload_fingerprint);
        put_position(out, *position);
        put_u64(out, *first_payload_fingerprint);
        put_u16(out, *first_epoch);
        put_u64(out, *first_offset);
    }
}

impl DeadLetterRow<'_> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Self { topic, position, reason, detail, key, value, parked_at } = self;
        put_bytes(out, topic.as_bytes());
        put_position(out, *position);
        put_bytes(out, reason.as_bytes());
        put_bytes(out, detail.as_bytes());
        put_bytes(out, &key[..key.len().min(DEAD_LETTER_KEY_BYTES_MAX)]);
        put_bytes(out, &value[..value.len().min(DEAD_LETTER_VALUE_BYTES_MAX)]);
        for length in [key.len(), value.len()] {
            put_u64(out, u64::try_from(length).expect("a length fits 64 bits"));
        }
        put_instant(out, *parked_at);
    }
}

impl IngestBatchRow<'_> {
    /// # Panics
    /// When the row contradicts itself: an audit that is wrong is worse than none.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let Self {
            topic,
            epoch,
            partition,
            first_offset,
            last_offset,
            records,
            stored,
            duplicates,
            conflicts,
            dead_letters,
            bytes_hash,
            token,
            inserted_at,
        } = self;
        assert!(first_offset <= last_offset, "a range holds at least one record");
        assert_eq!(
            *records,
            stored + duplicates + conflicts + dead_letters,
            "every record became something"
        );
        put_bytes(out, topic.as_bytes());
        put_u16(out, *epoch);
        put_u16(out, *partition);
        for number in [
            first_offset,
            last_offset,
            records,
            stored,
            duplicates,
            conflicts,
            dead_letters,
            bytes_hash,
        ] {
            put_u64(out, *number);
        }
        put_bytes(out, token.as_bytes());
        put_instant(out, *inserted_at);
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    let Position { epoch, partition, offset } = position;
    put_u16(out, epoch);
    put_u16(out, partition);
    put_u64(out, offset);
}
