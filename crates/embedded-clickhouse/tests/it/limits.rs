//! Each bound: what is at it passes, what is one past it does not.

use crate::support::database;
use embedded_clickhouse::config::{BUFFERED_BYTES_MAX, INSERT_BYTES_MAX, SQL_BYTES_MAX};

#[tokio::test]
async fn a_statement_has_at_most_a_mebibyte() {
    let Some(database) = database().await else { return };
    let padded = |bytes: usize| format!("SELECT 1{}", " ".repeat(bytes - 8));
    assert_eq!(database.post(&[], padded(SQL_BYTES_MAX)).await.text, "1\n");
    let answer = database.post(&[], padded(SQL_BYTES_MAX + 1)).await;
    assert_eq!((answer.status, answer.code()), (413, 307), "{}", answer.text);
}

#[tokio::test]
async fn a_buffered_body_is_bounded() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (s String) ENGINE = Null").await;
    let head = "INSERT INTO t FORMAT RowBinary\n".as_bytes();
    let insert = async |bytes: usize| {
        let mut body = head.to_vec();
        // Rows of one empty string each.
        body.resize(bytes, 0);
        database.post(&[("database", &database.name)], body).await.status
    };
    assert_eq!(insert(BUFFERED_BYTES_MAX).await, 200);
    assert_eq!(insert(BUFFERED_BYTES_MAX + 1).await, 413);
}

#[tokio::test]
async fn a_streamed_insert_is_bounded() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (s FixedString(256)) ENGINE = Null").await;
    let insert = async |bytes: usize| {
        let parameters =
            [("query", "INSERT INTO t FORMAT RowBinary"), ("database", &database.name)];
        database.post(&parameters, vec![0; bytes]).await
    };
    let full = insert(INSERT_BYTES_MAX).await;
    assert_eq!(full.status, 200, "{}", full.text);
    let answer = insert(INSERT_BYTES_MAX + 1).await;
    assert_eq!((answer.status, answer.code()), (413, 307), "{}", answer.text);
}

#[tokio::test]
async fn a_deep_statement_is_an_error_and_not_a_crash() {
    let Some(database) = database().await else { return };
    for sql in [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "-".repeat(100_001).replace("--", "- ")),
        format!("SELECT {}", "[".repeat(100_000)),
        format!("SELECT {}", "f(".repeat(100_000)),
    ] {
        let answer = database.post(&[], sql).await;
        assert!(answer.status >= 400, "{}", answer.text);
    }
    assert_eq!(database.ok("SELECT 1").await, "1\n");
}
