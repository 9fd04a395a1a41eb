//! Sends encoded rows. The same bytes can be sent again until the answer is a success.

use crate::audit_rows::{ConflictRow, DeadLetterRow, IngestBatchRow};
use crate::error::InsertError;
use crate::event_rows::EncodedRows;
use crate::store::UsageStore;
use crate::table::{DEAD_LETTERS, INGEST_BATCHES, Table, USAGE_EVENT_CONFLICTS, USAGE_EVENTS};
use crate::token::InsertToken;
use bytes::Bytes;
use fault_injection::{Sabotage, sabotaged};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes after which rows of the smaller tables go into another INSERT. One row (at most 1.2 MiB)
/// may go beyond it; a block is cut at 256 MiB.
const AUDIT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What every INSERT says, because defaults differ between versions, profiles and servers.
const SETTINGS: [(&str, &str); 9] = [
    // We batch ourselves; on by default since 26.2, it answers for other inserts' rows too.
    ("async_insert", "0"),
    // Drops a retry that carries the token of an insert that did land; see `sent_token`.
    ("insert_deduplicate", "1"),
    // Answers after the rows are stored, with the error in the status and not in the middle of the body.
    ("wait_end_of_query", "1"),
    // A null for a column that has none is an error, and never 0.
    ("input_format_null_as_default", "0"),
    // A view that fails fails the insert, so that nothing derived is silently short.
    ("materialized_views_ignore_errors", "0"),
    // If the table is in front of shards: answers after the shard has stored the rows.
    ("distributed_foreground_insert", "1"),
    // One INSERT is one block, and so atomic in each month. Our limits are far below these.
    ("max_insert_block_size", "1048576"),
    ("min_insert_block_size_bytes", "268435456"),
    // EventRows cuts at as many months, and an insert of more is refused whole.
    ("max_partitions_per_insert_block", "100"),
];

/// On a cluster: answers after a majority of the replicas has the rows.
const REPLICATED_SETTINGS: [(&str, &str); 2] =
    [("insert_quorum", "auto"), ("insert_quorum_parallel", "1")];

impl UsageStore {
    /// Stores accepted events.
    ///
    /// After an error the outcome may be unknown; send the same rows with the same token again.
    pub async fn insert_events(
        &self,
        rows: &EncodedRows,
        token: &InsertToken,
    ) -> Result<(), InsertError> {
        self.insert(&USAGE_EVENTS, rows.bytes.clone(), token.as_str()).await
    }

    /// Keeps refused copies of accepted events. May be repeated: a row is known by its position.
    pub async fn insert_conflicts(&self, rows: &[ConflictRow<'_>]) -> Result<(), InsertError> {
        self.insert_all(&USAGE_EVENT_CONFLICTS, rows, ConflictRow::put).await
    }

    /// Parks records that are no events. May be repeated: a row is known by its position.
    pub async fn insert_dead_letters(&self, rows: &[DeadLetterRow<'_>]) -> Result<(), InsertError> {
        self.insert_all(&DEAD_LETTERS, rows, DeadLetterRow::put).await
    }

    /// Notes what became of the records of a batch. May be repeated: a row is known by its range's start.
    pub async fn insert_batches(&self, rows: &[IngestBatchRow<'_>]) -> Result<(), InsertError> {
        self.insert_all(&INGEST_BATCHES, rows, IngestBatchRow::put).await
    }

    /// Encodes and sends `rows` in INSERTs of bounded size.
    async fn insert_all<R>(
        &self,
        table: &Table,
        rows: &[R],
        put: impl Fn(&R, &mut Vec<u8>),
    ) -> Result<(), InsertError> {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let mut bytes = Vec::new();
            while bytes.len() < AUDIT_BYTES_MAX
                && let Some(row) = rows.next()
            {
                put(row, &mut bytes);
            }
            // Rows are functions of their position, so equal bytes are the same rows.
            let token = format!("{}/{:032x}", table.name, xxh3_128(&bytes));
            self.insert(table, bytes.into(), &token).await?;
        }
        Ok(())
    }

    /// What an INSERT carries: on a cluster the same for each attempt, on a single server never the same.
    ///
    /// A cluster commits a token together with its part. A single server notes the token first: when it
    /// is killed before the part is in its place, or cannot put it there, it confirms a retry whose rows
    /// it does not have (docs/decisions/0008-a-token-for-each-attempt.md). Without any token it would take
    /// the hash of the block for one. Rows that are stored twice are absorbed by the views.
    fn sent_token(&self, token: &str) -> String {
        // The bug of a token without content needs a server that goes by tokens.
        const ONE_TOKEN: [Sabotage; 2] = [Sabotage::OneToken, Sabotage::TokenWithoutContent];
        if self.config.cluster.is_some() || ONE_TOKEN.into_iter().any(sabotaged) {
            return format!("{token}{}", self.token_suffix);
        }
        format!("{token}{}/{:016x}", self.token_suffix, RandomState::new().build_hasher().finish())
    }

    pub(crate) async fn insert(
        &self,
        table: &Table,
        bytes: Bytes,
        token: &str,
    ) -> Result<(), InsertError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut insert = self
            .client
            .insert_formatted_with(table.insert.trim_end())
            .with_timeouts(Some(self.config.insert_timeout), Some(self.config.insert_timeout))
            .with_setting("insert_deduplication_token", self.sent_token(token));
        for (name, value) in SETTINGS {
            insert = insert.with_setting(name, value);
        }
        if self.config.cluster.is_some() {
            for (name, value) in REPLICATED_SETTINGS {
                insert = insert.with_setting(name, value);
            }
        }
        let sent = async {
            insert.send(bytes).await?;
            insert.end().await
        };
        sent.await.map_err(|error| InsertError::new(table.name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UsageStoreConfig;
    use service_kit::secret::Secret;

    fn store(cluster: Option<&str>) -> UsageStore {
        let password = Secret::new(String::new());
        UsageStore::connect(&UsageStoreConfig {
            cluster: cluster.map(str::to_owned),
            ..UsageStoreConfig::new("http://127.0.0.1:1", "d", "u", password)
        })
    }

    #[test]
    fn attempts_share_a_token_on_a_cluster_only() {
        let cluster = store(Some("c"));
        assert_eq!(cluster.sent_token("t"), "t");
        assert_eq!(cluster.sent_token("t"), cluster.sent_token("t"));
        let single = store(None);
        let (first, second) = (single.sent_token("t"), single.sent_token("t"));
        assert!(first != second && first.starts_with("t/") && second.starts_with("t/"));
    }
}
