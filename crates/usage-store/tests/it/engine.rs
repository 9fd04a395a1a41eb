//! The engine that all tests of this program share, and a database of its own for each of them.

use clickhouse::Client;
use local_engines::clickhouse::EmbeddedClickHouse;
use service_kit::secret::Secret;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use usage_store::{UsageStore, UsageStoreConfig};

/// Where the engine listens, and the user that may do everything.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    url: String,
    user: String,
    password: Secret,
}

/// The shared engine: the server that `TALLYMARK_TEST_CLICKHOUSE_URL` names, or the embedded one.
pub(crate) fn shared() -> &'static Engine {
    static EMBEDDED: OnceLock<EmbeddedClickHouse> = OnceLock::new();
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        from_environment().unwrap_or_else(|| Engine::of(EMBEDDED.get_or_init(embedded)))
    })
}

/// An embedded engine on a temporary directory.
pub(crate) fn embedded() -> EmbeddedClickHouse {
    EmbeddedClickHouse::start_for_tests(&program()).expect("the embedded engine starts")
}

/// The engine's program, which cargo puts one directory above the test programs.
fn program() -> PathBuf {
    let here = std::env::current_exe().expect("a running program has a path");
    let program =
        here.ancestors().nth(2).expect("target/debug/deps/it").join("embedded-clickhouse");
    assert!(program.is_file(), "build it first: cargo build -p embedded-clickhouse");
    program
}

#[expect(clippy::disallowed_methods, reason = "a test program has no other configuration")]
fn from_environment() -> Option<Engine> {
    let url = std::env::var("TALLYMARK_TEST_CLICKHOUSE_URL").ok()?;
    let value = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    Some(Engine {
        url,
        user: value("TALLYMARK_TEST_CLICKHOUSE_USER", "default"),
        password: Secret::new(value("TALLYMARK_TEST_CLICKHOUSE_PASSWORD", "")),
    })
}

/// An empty database with the schema.
pub(crate) struct Database {
    pub(crate) store: UsageStore,
    pub(crate) config: UsageStoreConfig,
    client: Client,
}

impl Engine {
    pub(crate) fn of(engine: &EmbeddedClickHouse) -> Self {
        Self {
            url: engine.url(),
            user: engine.service_user().to_owned(),
            password: Secret::new(engine.service_password()),
        }
    }

    /// A database of this name that does not exist yet.
    pub(crate) fn config(&self, name: &str) -> UsageStoreConfig {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("test_{}_{number}_{name}", std::process::id());
        UsageStoreConfig {
            query_timeout: Duration::from_secs(120),
            ..UsageStoreConfig::new(&self.url, database, &self.user, self.password.clone())
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
            .with_password(config.password.expose())
            .with_database(&config.database);
        Self { store: UsageStore::connect(&config), config, client }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Keeps the parts of `usage_events` apart until they are merged on demand: no part is small
    /// enough to be merged in the background.
    pub(crate) async fn stop_merges(&self) {
        self.execute(
            "ALTER TABLE usage_events MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1",
        )
        .await;
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
