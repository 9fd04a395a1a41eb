//! Ids with several rows: first the keys of a period and of everything else, to compare; then the rows of
//! the few that are in question.
//!
//! A key is the first half of an identity hash. Two identities may share one, so that a key alone proves
//! nothing; but no identity has two.

use crate::config::SCAN_TIMEOUT;
use crate::conservation::Period;
use crate::error::StoreError;
use crate::event_rows::Position;
use crate::native::{Column, for_each_block};
use crate::row_reader::RowReader;
use crate::store::UsageStore;
use chrono::{DateTime, Utc};
use std::ops::RangeInclusive;

const PERIOD_KEYS: &str = include_str!("../queries/select_period_keys.sql");
const OTHER_KEYS: &str = include_str!("../queries/select_other_keys.sql");
const REUSED_IDS: &str = include_str!("../queries/select_reused_ids.sql");

const KEY: Column = Column { name: "identity_key", kind: "UInt64", width: 8 };
const PLACE: [Column; 3] = [
    Column { name: "topic_epoch", kind: "UInt16", width: 2 },
    Column { name: "kafka_partition", kind: "UInt16", width: 2 },
    Column { name: "kafka_offset", kind: "UInt64", width: 8 },
];

/// Most keys that one query may ask for. As text they have up to 21 bytes each, and a server takes no
/// parameter of more than 128 KiB (`http_max_field_value_size`).
pub const KEYS_MAX: usize = 5000;
const _: () = assert!(KEYS_MAX * 21 < 128 * 1024, "a server takes the longest list of keys");

/// The key of an identity.
pub fn key_of(hash: &[u8; 16]) -> u64 {
    let (key, _) = hash.split_first_chunk().expect("16 bytes are more than 8");
    u64::from_le_bytes(*key)
}

/// A billable row whose identity has other rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReusedId {
    pub hash: [u8; 16],
    pub organization_id: String,
    pub transaction_scope: String,
    pub transaction_id: String,
    pub position: Position,
    pub accepted_at: DateTime<Utc>,
    /// The places of its copies and of the rows that it hides, its own among them, in no order.
    pub places: Vec<Position>,
    /// Whether the identity has several billable rows, one of which was accepted in the period.
    pub is_reused: bool,
}

impl UsageStore {
    /// Calls `each` with the key and the place of every row that was accepted in `period`, whether billable or
    /// not, of the keys in `keys`. In no order, and copies of a row come repeatedly.
    pub async fn period_keys(
        &self,
        period: &Period,
        keys: &RangeInclusive<u64>,
        mut each: impl FnMut(u64, Position),
    ) -> Result<u64, StoreError> {
        let query = in_range(bind(self.query(PERIOD_KEYS), period), keys);
        let [epoch, partition, offset] = PLACE;
        let columns = [KEY, epoch, partition, offset];
        let operation = "reading the identities of the period";
        for_each_block(query, operation, SCAN_TIMEOUT, &columns, |columns| {
            let [keys, epochs, partitions, offsets] = columns;
            let places = epochs.as_chunks().0.iter().zip(partitions.as_chunks().0);
            let places = places.zip(offsets.as_chunks().0);
            for (key, ((epoch, partition), offset)) in keys.as_chunks().0.iter().zip(places) {
                let position = Position {
                    epoch: u16::from_le_bytes(*epoch),
                    partition: u16::from_le_bytes(*partition),
                    offset: u64::from_le_bytes(*offset),
                };
                each(u64::from_le_bytes(*key), position);
            }
        })
        .await
    }

    /// Calls `each` with the key of every row that was not accepted in `period`, whether billable or not, of
    /// the keys in `keys`. In no order. Reads two columns of the whole table, and of an organization, if the
    /// period is of one, only its rows.
    pub async fn other_keys(
        &self,
        period: &Period,
        keys: &RangeInclusive<u64>,
        mut each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        let query = in_range(bind(self.query(OTHER_KEYS), period), keys);
        let operation = "reading all other identities";
        for_each_block(query, operation, SCAN_TIMEOUT, &[KEY], |[keys]| {
            keys.as_chunks().0.iter().for_each(|key| each(u64::from_le_bytes(*key)));
        })
        .await
    }

    /// Calls `each` for the billable rows of identities with one of `keys`, at most [`KEYS_MAX`], if they are
    /// re-used or hide other rows. The rows of an identity follow each other, the earliest in the log
    /// first. Reads one column of the whole table.
    pub async fn reused_ids(
        &self,
        period: &Period,
        keys: &[u64],
        mut each: impl FnMut(ReusedId),
    ) -> Result<u64, StoreError> {
        let query = bind(self.query(REUSED_IDS), period).param("keys", keys);
        self.scan(query, "looking for ids that were used again", |row| {
            each(reused_id(row)?);
            Some(())
        })
        .await
    }
}

fn reused_id(row: &mut RowReader<'_>) -> Option<ReusedId> {
    Some(ReusedId {
        hash: row.take_hash()?,
        organization_id: row.take_text()?.into_owned(),
        transaction_scope: row.take_text()?.into_owned(),
        transaction_id: row.take_text()?.into_owned(),
        position: position(row)?,
        accepted_at: row.take_instant()?,
        places: (0..row.take_length()?).map(|_| position(row)).collect::<Option<_>>()?,
        is_reused: row.take_bool()?,
    })
}

fn position(row: &mut RowReader<'_>) -> Option<Position> {
    Some(Position { epoch: row.take_u16()?, partition: row.take_u16()?, offset: row.take_u64()? })
}

fn bind(query: clickhouse::query::Query, period: &Period) -> clickhouse::query::Query {
    query
        .param("from", period.from.timestamp_millis())
        .param("to", period.to.timestamp_millis())
        .param("organization", period.organization())
}

fn in_range(
    query: clickhouse::query::Query,
    keys: &RangeInclusive<u64>,
) -> clickhouse::query::Query {
    query.param("first", keys.start()).param("last", keys.end())
}
