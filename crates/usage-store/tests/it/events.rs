//! Events to store, and their encoding.

use chrono::{DateTime, TimeDelta, Utc};
use metering::identity::identity_hash;
use metering::{Quantity, UsageEvent};
use std::borrow::Cow;
use usage_store::{EncodedRows, EventRows, InsertToken, Position};

pub(crate) const TOPIC: &str = "usage.events";

/// 2026-01-31T23:00:00Z, an hour before a month ends.
pub(crate) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_769_900_400_000).expect("a valid instant")
}

/// An event of organization `o`, customer `c` and metric `m`, at [`start`] plus `minutes`.
pub(crate) fn event(id: &str, minutes: i64, value: Option<&str>) -> UsageEvent<'static> {
    let timestamp = start() + TimeDelta::minutes(minutes);
    UsageEvent {
        organization_id: Cow::Borrowed("o"),
        transaction_id: Cow::Owned(id.to_owned()),
        external_customer_id: Cow::Borrowed("c"),
        code: Cow::Borrowed("m"),
        timestamp,
        value: value.map(|text| Quantity::parse(text).expect("a quantity")),
        accepted_at: timestamp,
        ..UsageEvent::example()
    }
}

pub(crate) fn position(offset: u64) -> Position {
    Position { epoch: 1, partition: 0, offset }
}

pub(crate) fn push(rows: &mut EventRows, event: &UsageEvent<'_>, position: Position) {
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    rows.push(event, position, identity_hash(&key), event.payload_fingerprint());
}

/// The events at consecutive offsets of partition 0, from `first` on.
pub(crate) fn encode(first: u64, events: &[UsageEvent<'_>]) -> EncodedRows {
    let mut rows = EventRows::default();
    for (offset, event) in (first..).zip(events) {
        push(&mut rows, event, position(offset));
    }
    rows.finish()
}

/// The token of a range of partition 0.
pub(crate) fn token(first: u64, last: u64, rows: &EncodedRows) -> InsertToken {
    InsertToken::new(TOPIC, &[(0, first, last)], &rows.bytes)
}
