//! Ids with several billable rows: first the keys of a period and of everything else, to compare; then the
//! rows of the few that are in question.
//!
//! A key is the first half of an identity hash. Two identities may share one, so that a key alone proves
//! nothing; but no identity has two.

use crate::config::SCAN_TIMEOUT;
use crate::conservation::Period;
use crate::error::StoreError;
use crate::event_rows::Position;
use crate::native::{Column, for_each_block};
use crate::store::UsageStore;
use chrono::{DateTime, Utc};
use std::ops::RangeInclusive;

const BILLED_KEYS: &str = include_str!("../queries/select_billed_keys.sql");
const OTHER_KEYS: &str = include_str!("../queries/select_other_keys.sql");
const REUSED_IDS: &str = include_str!("../queries/select_reused_ids.sql");

const KEY_COLUMN: [Column; 1] = [Column { name: "identity_key", kind: "UInt64", width: 8 }];

/// Most keys that one query may ask for. As text they have up to 21 bytes each, and a server takes no
/// parameter of more than 128 KiB (`http_max_field_value_size`).
pub const KEYS_MAX: usize = 5000;
const _: () = assert!(KEYS_MAX * 21 < 128 * 1024, "a server takes the longest list of keys");

/// The key of an identity.
pub fn key_of(hash: &[u8; 16]) -> u64 {
    let (key, _) = hash.split_first_chunk().expect("16 bytes are more than 8");
    u64::from_le_bytes(*key)
}

/// A billable row of an identity that has more than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReusedId {
    pub hash: [u8; 16],
    pub organization_id: String,
    pub transaction_scope: String,
    pub transaction_id: String,
    pub position: Position,
    pub accepted_at: DateTime<Utc>,
}

impl UsageStore {
    /// Calls `each` with the key of every billable row that was accepted in `period`, of those in `keys`. In
    /// no order. Reads the period's rows with `FINAL`.
    pub async fn billed_keys(
        &self,
        period: &Period,
        keys: &RangeInclusive<u64>,
        each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        self.keys(BILLED_KEYS, "reading the billed identities", period, keys, each).await
    }

    /// Calls `each` with the key of every row that was not accepted in `period`, whether billable or not, of
    /// those in `keys`. In no order. Reads two columns of the whole table, and of an organization, if the
    /// period is of one, only its rows.
    pub async fn other_keys(
        &self,
        period: &Period,
        keys: &RangeInclusive<u64>,
        each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        self.keys(OTHER_KEYS, "reading all other identities", period, keys, each).await
    }

    /// Calls `each` for the billable rows of identities that have several, one of which was accepted in
    /// `period`, and of which one of `keys` is the key: at most [`KEYS_MAX`] of them. The rows of an identity
    /// follow each other, the earliest in the log first. Reads one column of the whole table.
    pub async fn reused_ids(
        &self,
        period: &Period,
        keys: &[u64],
        mut each: impl FnMut(ReusedId),
    ) -> Result<u64, StoreError> {
        let query = bind(self.query(REUSED_IDS), period).param("keys", keys);
        self.scan(query, "looking for ids that were used again", |row| {
            each(ReusedId {
                hash: row.take_hash()?,
                organization_id: row.take_text()?.into_owned(),
                transaction_scope: row.take_text()?.into_owned(),
                transaction_id: row.take_text()?.into_owned(),
                position: Position {
                    epoch: row.take_u16()?,
                    partition: row.take_u16()?,
                    offset: row.take_u64()?,
                },
                accepted_at: row.take_instant()?,
            });
            Some(())
        })
        .await
    }

    async fn keys(
        &self,
        sql: &'static str,
        operation: &'static str,
        period: &Period,
        keys: &RangeInclusive<u64>,
        mut each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        let query =
            bind(self.query(sql), period).param("first", keys.start()).param("last", keys.end());
        for_each_block(query, operation, SCAN_TIMEOUT, &KEY_COLUMN, |[keys]| {
            keys.as_chunks().0.iter().for_each(|key| each(u64::from_le_bytes(*key)));
        })
        .await
    }
}

fn bind(query: clickhouse::query::Query, period: &Period) -> clickhouse::query::Query {
    query
        .param("from", period.from.timestamp_millis())
        .param("to", period.to.timestamp_millis())
        .param("organization", period.organization())
}
