//! The two engines behind the store, and the two shapes of work on them: `read!` and `change!`.

use super::PoolOptions;
use crate::error::{ConfigError, Failure};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Database, Pool, SqlStr};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) enum Engine {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Engine {
    pub(super) async fn connect(url: &str, options: PoolOptions) -> Result<Self, Failure> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let pool = PgPoolOptions::new()
                .max_connections(options.max_connections)
                .acquire_timeout(options.acquire_timeout)
                .connect_with(postgres_options(url)?)
                .await?;
            Ok(Self::Postgres(pool))
        } else if url.starts_with("sqlite://") {
            let pool = SqlitePoolOptions::new()
                .max_connections(options.max_connections)
                .acquire_timeout(options.acquire_timeout)
                .connect_with(sqlite_options(url)?)
                .await?;
            Ok(Self::Sqlite(pool))
        } else {
            Err(ConfigError::Url.into())
        }
    }

    pub(super) async fn migrate(&self) -> Result<(), ConfigError> {
        let operation = "migrating the configuration database";
        let outcome = match self {
            Self::Postgres(pool) => {
                let connection = pool
                    .acquire()
                    .await
                    .map_err(|error| ConfigError::from_engine(operation, error))?;
                // Outside of the pool, because of the limits that are lifted here: building an index
                // may take minutes, and another process may be migrating just now.
                let mut connection = connection.detach();
                sqlx::raw_sql("SET statement_timeout = '30min'; SET lock_timeout = '5min'")
                    .execute(&mut connection)
                    .await
                    .map_err(|error| ConfigError::from_engine(operation, error))?;
                sqlx::migrate!("../../migrations/postgres").run(&mut connection).await
            }
            Self::Sqlite(pool) => sqlx::migrate!("../../migrations/sqlite").run(pool).await,
        };
        outcome.map_err(ConfigError::Migration)
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, Failure> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.application_name("tallymark").options([
        // A statement that outlives the caller's patience must not hold a connection or a lock.
        ("statement_timeout", "5s"),
        ("lock_timeout", "3s"),
        // All changes wait for one row's lock; a client that went away must not keep it.
        ("idle_in_transaction_session_timeout", "10s"),
    ]))
}

fn sqlite_options(url: &str) -> Result<SqliteConnectOptions, Failure> {
    let options: SqliteConnectOptions = url.parse()?;
    Ok(options
        .create_if_missing(true)
        // Readers go on while a change is written.
        .journal_mode(SqliteJournalMode::Wal)
        // A key that was shown to a person, or a revocation, survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Who waits for the lock looks again and again, and does not queue: of eight that write, one was
        // passed over for 3 s on a busy machine. Readers do not wait.
        .busy_timeout(Duration::from_secs(15)))
}

/// A connection for one piece of work.
///
/// Work that was cut short may leave the connection waiting for an answer that never comes, and the
/// pool would wait with it; such a connection is closed instead of returned.
pub(super) struct Lease<DB: Database> {
    connection: PoolConnection<DB>,
    is_finished: bool,
}

impl<DB: Database> Lease<DB> {
    pub(super) async fn take(pool: Pool<DB>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, is_finished: false })
    }

    pub(super) fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    /// Opens a transaction. It is rolled back when dropped without a commit.
    pub(super) async fn begin(
        &mut self,
        statement: SqlStr,
    ) -> Result<sqlx::Transaction<'_, DB>, sqlx::Error> {
        self.connection.begin_with(statement).await
    }

    pub(super) fn give_back(mut self) {
        self.is_finished = true;
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.connection.close_on_drop();
        }
    }
}

/// Takes the number of the next change. On Postgres the row stays locked until the transaction ends,
/// so changes commit one after the other, in the order of their numbers.
pub(super) const NEXT_SEQ: &str =
    "UPDATE config_change_counter SET last_seq = last_seq + 1 RETURNING last_seq";

pub(super) const INSERT_CHANGE: &str = "
    INSERT INTO config_changes (seq, organization_id, kind, key_id, changed_at)
    VALUES ($1, $2, $3, $4, $5)";

/// What `change!` writes to the log of changes.
pub(super) struct Change<'a> {
    pub(super) organization_id: &'a str,
    pub(super) kind: crate::model::ChangeKind,
    pub(super) key_id: Option<&'a str>,
    pub(super) at: chrono::DateTime<chrono::Utc>,
}

/// `read!(store, "operation", |connection| query)`: awaits one query on whichever engine there is.
///
/// A macro, because the two engines' connections have different types.
macro_rules! read {
    (@on $pool:ident, $connection:ident, $query:expr) => {{
        let mut lease = $crate::store::engine::Lease::take($pool.clone()).await?;
        let $connection = lease.connection();
        let output = $query.await?;
        lease.give_back();
        output
    }};
    ($store:expr, $operation:expr, |$connection:ident| $query:expr) => {
        $store.within($operation, async {
            Ok::<_, $crate::error::Failure>(match &$store.engine {
                $crate::store::engine::Engine::Postgres(pool) => read!(@on pool, $connection, $query),
                $crate::store::engine::Engine::Sqlite(pool) => read!(@on pool, $connection, $query),
            })
        })
    };
}

/// `change!(store, "operation", change, |connection| body)`: one transaction that takes the next
/// number of the log, runs `body` (which may end early with `?`), and writes the log entry.
macro_rules! change {
    (@on $pool:ident, $begin:literal, $change:expr, $connection:ident, $body:expr) => {{
        let mut lease = $crate::store::engine::Lease::take($pool.clone()).await?;
        let mut transaction = lease.begin(sqlx::SqlSafeStr::into_sql_str($begin)).await?;
        let seq: i64 = sqlx::query_scalar($crate::store::engine::NEXT_SEQ)
            .fetch_one(&mut *transaction)
            .await?;
        let output = {
            let $connection = &mut *transaction;
            $body
        };
        let $crate::store::engine::Change { organization_id, kind, key_id, at } = $change;
        sqlx::query($crate::store::engine::INSERT_CHANGE)
            .bind(seq)
            .bind(organization_id)
            .bind(kind.as_str())
            .bind(key_id)
            .bind(at)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        lease.give_back();
        output
    }};
    ($store:expr, $operation:expr, $change:expr, |$connection:ident| $body:expr) => {
        $store.within($operation, async {
            Ok::<_, $crate::error::Failure>(match &$store.engine {
                $crate::store::engine::Engine::Postgres(pool) => {
                    change!(@on pool, "BEGIN", $change, $connection, $body)
                }
                // Takes the write lock at once: a transaction that began by reading could not
                // upgrade after another writer's commit.
                $crate::store::engine::Engine::Sqlite(pool) => {
                    change!(@on pool, "BEGIN IMMEDIATE", $change, $connection, $body)
                }
            })
        })
    };
}
