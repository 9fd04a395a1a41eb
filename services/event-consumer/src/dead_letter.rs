//! Records that are no events: parked with their position and the reason, never skipped.

use crate::decode::{Refused, Source};
use chrono::{DateTime, Utc};
use event_log::FetchedRecord;
use std::borrow::Cow;
use usage_store::{DeadLetterRow, Position};

/// The row of `dead_letters` for a record that was refused at `at`.
pub fn park(
    source: &Source,
    position: Position,
    record: &FetchedRecord<'_>,
    refused: Refused,
    at: DateTime<Utc>,
) -> DeadLetterRow<'static> {
    let Refused { reason, detail } = refused;
    DeadLetterRow {
        topic: Cow::Owned(source.topic.clone()),
        position,
        reason: Cow::Borrowed(reason),
        detail: Cow::Owned(detail),
        key: Cow::Owned(record.key.to_vec()),
        value: Cow::Owned(record.value.to_vec()),
        parked_at: at,
    }
}

/// Memory of a parked record, in bytes.
pub fn byte_len(row: &DeadLetterRow<'_>) -> usize {
    size_of::<DeadLetterRow<'_>>() + row.key.len() + row.value.len() + row.detail.len()
}
