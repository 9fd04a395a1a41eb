//! Databases for tests: one SQLite file each, or one database each on a Postgres server of the run.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use config_store::{ConfigStore, Pepper, PoolOptions, Scope};
use local_engines::postgres::{Postgres, PostgresOptions};
use std::fs::{self, File};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) const ORGANIZATION: &str = "org_test";
/// How long a condition may take before a test gives up. Far above the two seconds that are promised,
/// which follow from the follower's constants: machines that run tests are shared and slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An empty database of one engine.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
    _directory: Option<tempfile::TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let url = format!("sqlite://{}", directory.path().join("config.db").display());
        Ok(Self { url, _directory: Some(directory) })
    }

    /// `None` on a machine without Postgres, which is an error in CI.
    pub(crate) fn postgres(name: &str) -> Result<Option<Self>> {
        let Some(server) = shared_server() else { return Ok(None) };
        // Names of databases have at most 63 bytes.
        let name = &name[..name.len().min(63)];
        server.create_database(name)?;
        Ok(Some(Self { url: server.url(name), _directory: None }))
    }

    pub(crate) fn at(url: &str) -> Self {
        Self { url: url.to_owned(), _directory: None }
    }

    /// A store with tables.
    pub(crate) async fn store(&self) -> Result<ConfigStore> {
        let store = ConfigStore::connect(&self.url, PoolOptions::default()).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// A store with tables and [`ORGANIZATION`].
    pub(crate) async fn store_with_organization(&self) -> Result<ConfigStore> {
        let store = self.store().await?;
        store.create_organization(Some(ORGANIZATION), "Test", at(0)).await?;
        Ok(store)
    }
}

/// The run's Postgres server; it dies with the test process.
pub(crate) fn shared_server() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<(Postgres, File)>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        local_engines::require_or_skip(
            "Postgres",
            start_shared_server().map_err(|e| format!("{e:#}")),
        )
    });
    server.as_ref().map(|(server, _lock)| server)
}

/// On a directory that the next run empties; a run waits for the one before it.
fn start_shared_server() -> Result<(Postgres, File)> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config-store");
    fs::create_dir_all(&root)?;
    let lock = File::create(root.join("lock"))?;
    lock.lock()?;
    let data_dir = root.join("postgres");
    if data_dir.exists() {
        fs::remove_dir_all(&data_dir).context("emptying the data directory")?;
    }
    Ok((Postgres::start(PostgresOptions { data_dir })?, lock))
}

pub(crate) fn pepper() -> Pepper {
    "a pepper for the tests".parse().expect("long enough")
}

/// An instant some seconds after the tests' zero.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a valid instant")
}

/// A key of [`ORGANIZATION`] that may send events: its id and its text.
pub(crate) async fn new_key(store: &ConfigStore) -> Result<(String, String)> {
    let (key, text) = store
        .create_api_key(ORGANIZATION, &pepper(), "a key", &[Scope::Ingest], None, at(0))
        .await?;
    Ok((key.key_id, text))
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub(crate) async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
