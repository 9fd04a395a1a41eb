//! One engine process for all tests, and a database of its own for each.

use clickhouse::{Client, Compression};
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::{libchdb, require_or_skip};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_embedded-clickhouse");

/// Longest wait for a condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Whether the engine's library is here or can be fetched.
pub(crate) fn library_available() -> bool {
    require_or_skip("libchdb", libchdb::ensure(true)).is_some()
}

/// The engine that all tests share.
pub(crate) fn shared() -> Option<&'static EmbeddedClickHouse> {
    static ENGINE: OnceLock<Option<EmbeddedClickHouse>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            library_available()
                .then(|| EmbeddedClickHouse::start_for_tests(Path::new(BINARY)).unwrap())
        })
        .as_ref()
}

/// A new database in the shared engine.
pub(crate) struct Database {
    pub(crate) engine: &'static EmbeddedClickHouse,
    pub(crate) name: String,
}

pub(crate) async fn database() -> Option<Database> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let engine = tokio::task::spawn_blocking(shared).await.unwrap()?;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let database = Database { engine, name };
    database.ok(&format!("CREATE DATABASE {}", database.name)).await;
    Some(database)
}

impl Database {
    /// The Rust client as the services' user.
    pub(crate) fn client(&self) -> Client {
        client(self.engine).with_database(&self.name)
    }

    /// A request as the services' user with parameters in the URL.
    pub(crate) async fn post(
        &self,
        parameters: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let (user, password) = (self.engine.service_user(), self.engine.service_password());
        self.post_as(user, password, parameters, body).await
    }

    /// The same as the reader.
    pub(crate) async fn read(&self, sql: &str) -> Answer {
        let (user, password) = (self.engine.reader_user(), self.engine.reader_password());
        self.post_as(user, password, &[("database", &self.name)], sql.to_owned()).await
    }

    pub(crate) async fn post_as(
        &self,
        user: &str,
        password: &str,
        parameters: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = reqwest::Url::parse_with_params(&self.engine.url(), parameters).unwrap();
        let request = reqwest::Client::new().post(url).basic_auth(user, Some(password)).body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Runs a statement in this database and returns its result.
    #[track_caller]
    pub(crate) fn ok(&self, sql: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        let sql = sql.to_owned();
        async move {
            let database = [("database", self.name.as_str())];
            let parameters =
                if sql.starts_with("CREATE DATABASE") { &[][..] } else { &database[..] };
            let answer = self.post(parameters, sql.clone()).await;
            assert_eq!(answer.status, 200, "{caller}: {sql}: {}", answer.text);
            answer.text
        }
    }

    /// Waits until `sql` answers `expected`.
    pub(crate) async fn eventually(&self, sql: &str, expected: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.ok(sql).await;
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {found:?} instead of {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn client(engine: &EmbeddedClickHouse) -> Client {
    Client::default()
        .with_url(engine.url())
        .with_user(engine.service_user())
        .with_password(engine.service_password())
        .with_compression(Compression::None)
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap().to_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Self { status, headers, bytes, text }
    }

    /// The exception's code; zero for a success.
    pub(crate) fn code(&self) -> u32 {
        self.header("X-ClickHouse-Exception-Code").parse().unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The code in an error of the Rust client.
pub(crate) fn code(error: &clickhouse::error::Error) -> u32 {
    let text = error.to_string();
    let digits = text.split_once("Code: ").and_then(|(_, rest)| rest.split('.').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no code in {text}"))
}
