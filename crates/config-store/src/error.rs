//! What can go wrong with the configuration. Whether to retry is decided here, where sqlx's errors enter.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Something the configuration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    Organization,
    ApiKey,
    BillableMetric,
    Customer,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Organization => "organization",
            Self::ApiKey => "API key",
            Self::BillableMetric => "billable metric",
            Self::Customer => "customer",
        })
    }
}

/// A failed operation on the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL names no engine that is supported. The URL itself may hold a password and is not repeated.
    #[error("the configuration URL has to be postgres://… or sqlite://…")]
    Url,
    /// The caller gave something that cannot be stored; the text says how to fix it.
    #[error("{0}")]
    Invalid(String),
    #[error("there is no {what} `{id}`")]
    NotFound { what: Entity, id: String },
    #[error("there is already a {what} `{id}`")]
    AlreadyExists { what: Entity, id: String },
    /// The database holds something that this version cannot read.
    #[error("the stored {what} cannot be read: {detail}")]
    Unreadable { what: Entity, detail: String },
    /// The tables could not be brought to the state this version needs.
    #[error("the migrations could not be applied")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The operation took too long. Whether a change was made is unknown.
    #[error("{operation} took longer than {limit:?}")]
    TimedOut { operation: &'static str, limit: Duration },
    /// The database is away or overloaded; the operation may succeed when tried again. Whether a
    /// change was made is unknown.
    #[error("{operation} failed for now")]
    Unavailable { operation: &'static str, source: Box<dyn Error + Send + Sync> },
    /// The operation will not succeed without a change from outside.
    #[error("{operation} failed")]
    Failed { operation: &'static str, source: Box<dyn Error + Send + Sync> },
}

impl ConfigError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Unavailable { .. })
    }

    pub(crate) fn from_engine(operation: &'static str, error: sqlx::Error) -> Self {
        if is_transient(&error) {
            Self::Unavailable { operation, source: error.into() }
        } else {
            Self::Failed { operation, source: error.into() }
        }
    }

    pub(crate) fn not_found(what: Entity, id: &str) -> Self {
        Self::NotFound { what, id: id.to_owned() }
    }
}

/// Why the body of a transaction ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(sqlx::Error),
    Refused(ConfigError),
}

impl Failure {
    /// For an insert: names the constraint that was in the way.
    pub(crate) fn of_insert(
        error: sqlx::Error,
        what: Entity,
        id: &str,
        organization_id: &str,
    ) -> Self {
        match error.as_database_error().map(sqlx::error::DatabaseError::kind) {
            Some(sqlx::error::ErrorKind::UniqueViolation) => {
                Self::Refused(ConfigError::AlreadyExists { what, id: id.to_owned() })
            }
            Some(sqlx::error::ErrorKind::ForeignKeyViolation) => {
                Self::Refused(ConfigError::not_found(Entity::Organization, organization_id))
            }
            _ => Self::Engine(error),
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> ConfigError {
        match self {
            Self::Engine(error) => ConfigError::from_engine(operation, error),
            Self::Refused(error) => error,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Refused(error)
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                is_transient_sqlite(&code)
            } else {
                is_transient_postgres(&code)
            }
        }),
        _ => false,
    }
}

/// SQLSTATE classes: connection (08), transaction rollback (40), resources (53), not in a usable
/// state (55: locks, a database closed to connections), operator intervention (57: cancelled by a
/// timeout, shutting down, starting up), system (58).
fn is_transient_postgres(code: &str) -> bool {
    ["08", "25P03", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// The primary code is the low byte: BUSY 5, LOCKED 6, NOMEM 7, IOERR 10, FULL 13, CANTOPEN 14.
fn is_transient_sqlite(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 10 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_away_or_busy_is_worth_another_try() {
        for error in
            [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed, sqlx::Error::WorkerCrashed]
        {
            assert!(ConfigError::from_engine("a test", error).is_transient());
        }
        assert!(!ConfigError::from_engine("a test", sqlx::Error::RowNotFound).is_transient());
        // admin shutdown, starting up, deadlock, too many connections, lock timeout, disk full
        for code in ["57P01", "57P03", "40P01", "53300", "55P03", "53100"] {
            assert!(is_transient_postgres(code), "{code}");
        }
        // undefined table, wrong password, check violation
        for code in ["42P01", "28P01", "23514"] {
            assert!(!is_transient_postgres(code), "{code}");
        }
        // busy, busy with a snapshot, i/o error on fsync
        for code in ["5", "517", "1034"] {
            assert!(is_transient_sqlite(code), "{code}");
        }
        // unique, foreign key, syntax
        for code in ["2067", "787", "1", ""] {
            assert!(!is_transient_sqlite(code), "{code}");
        }
    }

    #[test]
    fn the_cause_is_told_once() {
        let error = ConfigError::from_engine("a test", sqlx::Error::PoolTimedOut);
        assert_eq!(error.to_string(), "a test failed for now");
        assert!(error.source().is_some());
    }
}
