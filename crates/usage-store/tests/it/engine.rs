//! The engine that all tests of this program share, and a database of its own for each of them.

use clickhouse::Client;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use usage_store::{UsageStore, UsageStoreConfig};

/// Where the engine listens, and the user that may do everything.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// The shared engine: the server that `TALLYMARK_TEST_CLICKHOUSE_URL` names, or the embedded one.
pub(crate) fn shared() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| from_environment().expect("a server"))
}

#[expect(clippy::disallowed_methods, reason = "a test program has no other configuration")]
fn from_environment() -> Option<Engine> {
    let url = std::env::var("TALLYMARK_TEST_CLICKHOUSE_URL").ok()?;
    let value = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    Some(Engine {
        url,
        user: value("TALLYMARK_TEST_CLICKHOUSE_USER", "default"),
        password: value("TALLYMARK_TEST_CLICKHOUSE_PASSWORD", ""),
    })
}

/// An empty database with the schema.
pub(crate) struct Database {
    pub(crate) store: UsageStore,
    pub(crate) config: UsageStoreConfig,
    client: Client,
}

impl Engine {
    /// A database of this name that does not exist yet.
    pub(crate) fn config(&self, name: &str) -> UsageStoreConfig {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("test_{}_{number}_{name}", std::process::id());
        UsageStoreConfig {
            query_timeout: Duration::from_secs(120),
            ..UsageStoreConfig::new(&self.url, database, &self.user, &self.password)
        }
    }

    pub(crate) async fn database(&self, name: &str) -> Database {
        let database = Database::open(self.config(name));
        database.store.migrate().await.expect("the schema applies");
        database
    }
}

/// A database of the shared engine.
pub(crate) async fn database(name: &str) -> Database {
    shared().database(name).await
}

impl Database {
    pub(crate) fn open(config: UsageStoreConfig) -> Self {
        let client = Client::default()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(&config.password)
            .with_database(&config.database);
        Self { store: UsageStore::connect(&config), config, client }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The answer as tab-separated text, or the server's error.
    pub(crate) async fn try_text(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
    ) -> Result<String, String> {
        let mut query = self.client.query_raw(sql);
        for (name, value) in settings {
            query = match name.strip_prefix("param_") {
                Some(name) => query.param(name, value),
                None => query.with_setting(*name, *value),
            };
        }
        let mut answer = query.fetch_bytes("TabSeparated").map_err(|error| error.to_string())?;
        let bytes = answer.collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.try_text(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Asserts the rows of `sql`, their columns separated by spaces.
    #[track_caller]
    pub(crate) fn expect<'a>(
        &'a self,
        sql: &'a str,
        rows: &'a [&'a str],
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let text = self.text(sql).await.replace('\t', " ");
            assert_eq!(text.lines().collect::<Vec<_>>(), rows, "{sql} at {caller}");
        }
    }
}
