//! The handle to the store: one HTTP connection pool and the limits of each call.

use crate::config::UsageStoreConfig;
use crate::error::StoreError;
use clickhouse::query::Query;
use clickhouse::{Client, Compression};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// A ClickHouse database with our schema. Cheap to clone; connections are opened when needed.
#[derive(Clone)]
pub struct UsageStore {
    pub(crate) client: Client,
    pub(crate) config: UsageStoreConfig,
    /// Ends the token of every insert.
    pub(crate) token_suffix: Arc<str>,
}

impl std::fmt::Debug for UsageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl UsageStore {
    /// Remembers where the store is; nothing is sent yet.
    pub fn connect(config: &UsageStoreConfig) -> Self {
        let client = Client::default()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(config.password.expose())
            .with_database(&config.database)
            // Not the default of whichever features a build has: a batch would become one compressed
            // block, larger than a server may take, for a link that is seldom the bottleneck.
            .with_compression(Compression::None)
            // A query that is cut short by a limit of the user's profile must fail: a shortened list
            // of identities would let duplicates through.
            .with_setting("read_overflow_mode", "throw")
            .with_setting("result_overflow_mode", "throw")
            .with_setting("timeout_overflow_mode", "throw");
        Self { client, config: config.clone(), token_suffix: "".into() }
    }

    /// The same store, whose inserts have tokens of their own.
    ///
    /// The server remembers the tokens of 10,000 inserts, also of those whose rows were deleted since: the
    /// same rows under the same token are confirmed and stay missing. Copies of rows that are there are
    /// absorbed by their positions.
    #[must_use]
    pub fn restoring(&self) -> Self {
        let random = RandomState::new().build_hasher().finish();
        Self { token_suffix: format!("/restored {random:016x}").into(), ..self.clone() }
    }

    /// Asks the server for an answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "the ping of ClickHouse";
        within(
            self.config.query_timeout,
            OPERATION,
            self.client.query_raw("SELECT 1").fetch_one::<u8>(),
        )
        .await?;
        Ok(())
    }

    /// A query of `queries/`, whose parameters are bound by the server.
    pub(crate) fn query(&self, sql: &'static str) -> Query {
        self.client.query_raw(sql)
    }
}

/// Runs `query` for at most `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    query: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, query).await {
        Ok(answer) => answer.map_err(StoreError::query(operation)),
        Err(_) => Err(StoreError::TimedOut { operation }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::secret::Secret;

    #[test]
    fn no_answer_may_be_cut_short() {
        let config = UsageStoreConfig::new(
            "http://localhost:8123",
            "usage",
            "writer",
            Secret::new("hunter2"),
        );
        let store = UsageStore::connect(&config);
        for mode in ["read_overflow_mode", "result_overflow_mode", "timeout_overflow_mode"] {
            assert_eq!(store.client.get_setting(mode), Some("throw"), "{mode}");
        }
        assert!(!format!("{store:?}").contains("hunter2"));
    }
}
