//! The log of changes, in the order in which they were committed.

use super::ConfigStore;
use crate::error::ConfigError;
use crate::model::{ChangeKind, ConfigChange};
use chrono::{DateTime, Utc};

/// Most changes in one answer.
pub const CHANGES_PAGE: u32 = 1_000;

const LATEST: &str = "SELECT last_seq FROM config_change_counter";

const LIST: &str = "
    SELECT seq, organization_id, kind, key_id, changed_at FROM config_changes
    WHERE seq > $1 ORDER BY seq LIMIT $2";

#[derive(sqlx::FromRow)]
struct Row {
    seq: i64,
    organization_id: String,
    kind: String,
    key_id: Option<String>,
    changed_at: DateTime<Utc>,
}

impl From<Row> for ConfigChange {
    fn from(row: Row) -> Self {
        let Row { seq, organization_id, kind, key_id, changed_at } = row;
        let kind = ChangeKind::from_stored(&kind);
        Self { seq: seq.unsigned_abs(), organization_id, kind, key_id, changed_at }
    }
}

impl ConfigStore {
    /// The changes after `seq`, the oldest first; at most [`CHANGES_PAGE`].
    ///
    /// Numbers become visible in order and without gaps, so a reader that goes on after the last
    /// number it saw misses nothing.
    pub async fn changes_after(&self, seq: u64) -> Result<Vec<ConfigChange>, ConfigError> {
        // A number beyond the column's range is after every change.
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let rows: Vec<Row> = read!(self, "reading the log of changes", |connection| {
            sqlx::query_as(LIST).bind(seq).bind(i64::from(CHANGES_PAGE)).fetch_all(connection)
        })
        .await?;
        Ok(rows.into_iter().map(ConfigChange::from).collect())
    }

    /// The number of the latest change; zero when there is none.
    pub async fn latest_change(&self) -> Result<u64, ConfigError> {
        let seq: i64 = read!(self, "reading the latest change", |connection| {
            sqlx::query_scalar(LATEST).fetch_one(connection)
        })
        .await?;
        Ok(seq.unsigned_abs())
    }
}
