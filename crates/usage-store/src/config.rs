//! Where the store is, who asks, and how long it may take.

use service_kit::secret::Secret;
use std::time::Duration;

/// Longest silence of a query that may have to read a column of all events before it has anything to answer:
/// 2 hours, in which a laptop gets through that column of 70 billion events, and a server that reads 3 GB/s
/// through that of a trillion. A server that is gone is noticed before, by the keepalive of the connection.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// The connection to ClickHouse.
#[derive(Clone, Debug)]
pub struct UsageStoreConfig {
    /// The HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: String,
    pub database: String,
    pub user: String,
    pub password: Secret,
    /// Longest time for one insert, until its answer. When it passes, the outcome is unknown.
    pub insert_timeout: Duration,
    /// Longest time for one query; for streamed answers, between two pieces of it.
    pub query_timeout: Duration,
    /// The cluster that tables are created and replicated on; `None` for a single server.
    pub cluster: Option<String>,
}

impl UsageStoreConfig {
    /// A full batch takes well below a second; a minute tells a slow server from a dead one.
    pub const INSERT_TIMEOUT: Duration = Duration::from_secs(60);
    pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

    /// A single server, with the default timeouts.
    pub fn new(
        url: impl Into<String>,
        database: impl Into<String>,
        user: impl Into<String>,
        password: Secret,
    ) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            user: user.into(),
            password,
            insert_timeout: Self::INSERT_TIMEOUT,
            query_timeout: Self::QUERY_TIMEOUT,
            cluster: None,
        }
    }
}
