//! What can go wrong with the store. Whether and how to retry is decided here, once.

use std::error::Error;

/// A failed query or schema operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not have the schema this program needs; the text says what to do.
    #[error("{0}")]
    Schema(String),
    /// No answer in time.
    #[error("{operation} took too long")]
    TimedOut { operation: &'static str },
    /// The server refused, or could not be reached.
    #[error("{operation} failed")]
    Query { operation: &'static str, code: Option<u32>, source: Box<dyn Error + Send + Sync> },
}

impl StoreError {
    pub(crate) fn query(operation: &'static str) -> impl FnOnce(clickhouse::error::Error) -> Self {
        move |error| match error {
            clickhouse::error::Error::TimedOut => Self::TimedOut { operation },
            error => Self::Query { operation, code: server_code(&error), source: Box::new(error) },
        }
    }
}

/// How to go on after a failed insert. In both cases the same bytes are to be sent again under the
/// same token, for ever: nothing here ever means that rows may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may work by itself, soon. The outcome may be unknown: the rows may be stored already.
    SameBytes,
    /// It will not work before a person changes something: rights, disk space, schema.
    NeedsOperator,
}

/// An insert that was not confirmed.
#[derive(Debug, thiserror::Error)]
#[error("the insert into {table} was not confirmed")]
pub struct InsertError {
    pub table: &'static str,
    pub retry: Retry,
    /// ClickHouse's error code, when it was ClickHouse that refused.
    pub code: Option<u32>,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl InsertError {
    pub(crate) fn new(table: &'static str, error: clickhouse::error::Error) -> Self {
        let code = server_code(&error);
        let retry = match code {
            Some(code) => retry_of(code, &error.to_string()),
            None => Retry::SameBytes,
        };
        Self { table, retry, code, source: Box::new(error) }
    }
}

/// The number in `Code: 241. DB::Exception: …`, which the client keeps as text.
fn server_code(error: &clickhouse::error::Error) -> Option<u32> {
    let clickhouse::error::Error::BadResponse(text) = error else { return None };
    let digits = text.split_once("Code: ")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Codes that no retry gets past. Every other one is retried soon, unknown ones too: a retry is
/// harmless, and a batch that makes no progress fails the liveness probe anyway.
fn retry_of(code: u32, text: &str) -> Retry {
    match code {
        // Unknown, missing or mistyped tables, columns, databases and settings.
        10 | 16 | 36 | 44 | 46 | 47 | 53 | 60 | 62 | 70 | 81 | 115 => Retry::NeedsOperator,
        // Rows that can't be read. Our encoder writes the pinned types, so the schema has changed.
        6 | 26 | 27 | 32 | 33 | 38 | 41 | 69 | 72 | 117 | 131 | 349 | 407 | 452 | 469 => {
            Retry::NeedsOperator
        }
        // Read-only, access denied, unknown user, wrong password, expired.
        164 | 192 | 193 | 194 | 497 | 516 => Retry::NeedsOperator,
        // The disk is full.
        243 => Retry::NeedsOperator,
        // Both "too many parts", which merges cure, and "too many partitions for single INSERT
        // block", which only a changed server limit can cause.
        252 if text.contains("Too many partitions") => Retry::NeedsOperator,
        _ => Retry::SameBytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::error::Error::{BadResponse, Network, TimedOut};

    fn refused(text: &str) -> InsertError {
        InsertError::new("usage_events", BadResponse(text.to_owned()))
    }

    #[test]
    fn what_may_pass_by_itself_is_sent_again_soon() {
        for code in [159, 202, 209, 210, 241, 242, 319, 394, 425, 999, 123_456] {
            let error = refused(&format!("Code: {code}. DB::Exception: text. (NAME)"));
            assert_eq!((error.retry, error.code), (Retry::SameBytes, Some(code)));
        }
        for error in [TimedOut, Network("cut".into()), BadResponse("502 Bad Gateway".to_owned())] {
            let error = InsertError::new("usage_events", error);
            assert_eq!((error.retry, error.code), (Retry::SameBytes, None));
        }
    }

    #[test]
    fn what_needs_a_person_says_so() {
        for code in [16, 33, 47, 60, 81, 117, 164, 243, 497, 516] {
            assert_eq!(
                refused(&format!("Code: {code}. DB::Exception: text")).retry,
                Retry::NeedsOperator,
                "{code}"
            );
        }
    }

    #[test]
    fn too_many_parts_and_too_many_partitions_share_a_code() {
        let parts = "Code: 252. DB::Exception: Too many parts (3000). Merges are processing significantly slower than inserts";
        let partitions =
            "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100)";
        assert_eq!(refused(parts).retry, Retry::SameBytes);
        assert_eq!(refused(partitions).retry, Retry::NeedsOperator);
    }
}
