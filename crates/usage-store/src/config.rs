//! Where the store is, who asks, and how long it may take.

use std::fmt;
use std::time::Duration;

/// The connection to ClickHouse.
#[derive(Clone)]
pub struct UsageStoreConfig {
    /// The HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: String,
    pub database: String,
    pub user: String,
    /// Never printed, in `Debug` neither.
    pub password: String,
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
        password: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            user: user.into(),
            password: password.into(),
            insert_timeout: Self::INSERT_TIMEOUT,
            query_timeout: Self::QUERY_TIMEOUT,
            cluster: None,
        }
    }
}

impl fmt::Debug for UsageStoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, database, user, password: _, insert_timeout, query_timeout, cluster } =
            self;
        f.debug_struct("UsageStoreConfig")
            .field("url", url)
            .field("database", database)
            .field("user", user)
            .field("insert_timeout", insert_timeout)
            .field("query_timeout", query_timeout)
            .field("cluster", cluster)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_printed() {
        let config = UsageStoreConfig::new("http://localhost:8123", "usage", "writer", "hunter2");
        assert!(!format!("{config:?}{config:#?}").contains("hunter2"));
    }
}
