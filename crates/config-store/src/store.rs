//! The configuration database: one set of operations on Postgres and on SQLite.

#[macro_use]
mod engine;
mod api_keys;
mod billable_metrics;
mod changes;
mod check;
mod customers;
mod organizations;

use crate::error::{ConfigError, Failure};
use engine::Engine;
use std::future::Future;
use std::time::Duration;

pub(crate) use api_keys::StoredKey;
pub use api_keys::{KEYS_LISTED_MAX, KEYS_PER_ORGANIZATION_MAX};
pub use billable_metrics::METRICS_PER_ORGANIZATION_MAX;
pub use changes::CHANGES_PAGE;
pub use customers::CUSTOMERS_PAGE;
pub use organizations::ORGANIZATIONS_LISTED_MAX;

/// Bounds of a store's connections.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Most connections at a time.
    pub max_connections: u32,
    /// Longest wait for a connection, including making one.
    pub acquire_timeout: Duration,
    /// Longest time for one operation, including the wait for a connection.
    pub operation_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(5),
        }
    }
}

/// A handle on the configuration database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    engine: Engine,
    options: PoolOptions,
}

impl ConfigStore {
    /// Opens `postgres://…` or `sqlite://path` (created when missing), and makes one connection, so
    /// that a wrong address is noticed at the start.
    pub async fn connect(url: &str, options: PoolOptions) -> Result<Self, ConfigError> {
        let operation = "connecting to the configuration database";
        let engine =
            Engine::connect(url, options).await.map_err(|failure| failure.into_error(operation))?;
        Ok(Self { engine, options })
    }

    /// Brings the tables to the state this version needs. Applied migrations are left alone, and
    /// several processes may call this at the same time.
    pub async fn migrate(&self) -> Result<(), ConfigError> {
        self.engine.migrate().await
    }

    /// Closes all connections; operations fail from now on.
    pub async fn close(&self) {
        self.engine.close().await;
    }

    pub(crate) const fn max_connections(&self) -> u32 {
        self.options.max_connections
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, ConfigError> {
        let limit = self.options.operation_timeout;
        tokio::time::timeout(limit, work)
            .await
            .map_err(|_| ConfigError::TimedOut { operation, limit })?
            .map_err(|failure| failure.into_error(operation))
    }
}
