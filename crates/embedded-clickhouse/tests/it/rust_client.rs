//! The `clickhouse` crate, unmodified: rows, parameters, errors.

use crate::support::{Database, code, database};
use clickhouse::{Compression, Row};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
struct Event {
    id: u64,
    code: String,
    at: i64,
    value: Option<i128>,
    tags: Vec<String>,
    labels: Vec<(String, String)>,
}

fn event(id: u64) -> Event {
    Event {
        id,
        code: format!("code-{}", id % 7),
        at: 1_767_225_600_000 + i64::try_from(id).unwrap(),
        value: (!id.is_multiple_of(3)).then_some(i128::from(id) * -1_000_000_000_001),
        tags: (0..id % 3).map(|n| format!("t{n}")).collect(),
        labels: vec![("k".to_owned(), id.to_string())],
    }
}

async fn events_table(database: &Database) {
    let columns = "id UInt64, code LowCardinality(String), at DateTime64(3, 'UTC'), value Nullable(Decimal(38, 12)), \
                   tags Array(String), labels Map(String, String)";
    database.ok(&format!("CREATE TABLE events ({columns}) ENGINE = MergeTree ORDER BY id")).await;
}

#[tokio::test]
async fn rows_come_back_as_they_went_in() {
    let Some(database) = database().await else { return };
    events_table(&database).await;
    let expected: Vec<_> = (0..1000).map(event).collect();
    for (validation, compression) in [
        (true, Compression::None),
        (true, Compression::Lz4),
        (false, Compression::None),
        (false, Compression::Lz4),
    ] {
        database.ok("TRUNCATE TABLE events").await;
        let client = database.client().with_validation(validation).with_compression(compression);
        let mut insert = client.insert::<Event>("events").await.unwrap();
        for row in &expected {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
        let query = client.query("SELECT ?fields FROM events ORDER BY id");
        let found = query.fetch_all::<Event>().await.unwrap();
        assert!(found == expected, "validation {validation}, {compression:?}");
    }
}

#[tokio::test]
async fn a_long_result_is_streamed_without_repeating_its_header() {
    let Some(database) = database().await else { return };
    for validation in [true, false] {
        let client = database.client().with_validation(validation);
        let mut cursor = client
            .query("SELECT number, toString(number) FROM numbers(300000)")
            .fetch::<(u64, String)>()
            .unwrap();
        let mut next = 0;
        while let Some((number, text)) = cursor.next().await.unwrap() {
            assert_eq!((number, text), (next, next.to_string()));
            next += 1;
        }
        assert_eq!(next, 300_000);
    }
}

#[tokio::test]
async fn one_row_none_and_an_empty_result() {
    let Some(database) = database().await else { return };
    let client = database.client();
    assert_eq!(client.query("SELECT 1::UInt8").fetch_one::<u8>().await.unwrap(), 1);
    let none = "SELECT number FROM numbers(10) WHERE number > 10";
    assert_eq!(client.query(none).fetch_optional::<u64>().await.unwrap(), None);
    assert_eq!(client.query(none).fetch_all::<u64>().await.unwrap(), Vec::<u64>::new());
}

#[tokio::test]
async fn values_are_bound_on_either_side() {
    let Some(database) = database().await else { return };
    let client = database.client();
    for text in [
        "plain",
        "it's",
        "back\\slash",
        "tab\tnewline\nreturn\r",
        "{x:String}",
        "?",
        "ünï",
        "'; DROP TABLE x; --",
        "",
    ] {
        let bound = client.query("SELECT ?").bind(text).fetch_one::<String>().await.unwrap();
        assert_eq!(bound, text);
        let parameter = client
            .query("SELECT {text:String}")
            .param("text", text)
            .fetch_one::<String>()
            .await
            .unwrap();
        assert_eq!(parameter, text);
    }
    let sum = client.query("SELECT sum(number) FROM numbers({n:UInt64})").param("n", 5);
    assert_eq!(sum.fetch_one::<u64>().await.unwrap(), 10);
}

#[tokio::test]
async fn errors_carry_the_engines_code() {
    let Some(database) = database().await else { return };
    events_table(&database).await;
    let client = database.client();
    for (sql, expected) in [
        ("SELECT * FROM missing", 60),
        ("SELECT missing FROM events", 47),
        ("SELEC 1", 62),
        ("SELECT missing()", 46),
        ("SELECT * FROM missing.events", 81),
        ("SELECT throwIf(1)", 395),
    ] {
        let error = client.query(sql).fetch_all::<u8>().await.unwrap_err();
        assert_eq!(code(&error), expected, "{sql}: {error}");
    }
    let unknown = client.clone().with_setting("no_such_setting", "1");
    assert_eq!(code(&unknown.query("SELECT 1").execute().await.unwrap_err()), 115);
    let hurried = client.clone().with_setting("max_execution_time", "1");
    let slow = hurried.query("SELECT sum(sipHash64(number)) FROM numbers(100000000000)");
    assert_eq!(code(&slow.execute().await.unwrap_err()), 159);
    let poor = client.with_setting("max_memory_usage", "10000000");
    let hungry = poor.query("SELECT groupArray(number) FROM numbers(100000000) FORMAT Null");
    assert_eq!(code(&hungry.execute().await.unwrap_err()), 241);
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_result_is_not_its_end() {
    let Some(database) = database().await else { return };
    let sql = "SELECT number, throwIf(number = 2500000) FROM numbers(3000000)";
    for compression in [Compression::None, Compression::Lz4] {
        let client = database.client().with_compression(compression);
        let mut cursor = client.query(sql).fetch::<(u64, u8)>().unwrap();
        let mut rows = 0;
        let error = loop {
            match cursor.next().await {
                Ok(Some(_)) => rows += 1,
                Ok(None) => panic!("the result ended well after {rows} rows"),
                Err(error) => break error,
            }
        };
        assert!(rows > 0 && rows < 2_500_001, "{rows}");
        assert_eq!(code(&error), 395);
    }
}

#[tokio::test]
async fn settings_hold_for_one_request() {
    let Some(database) = database().await else { return };
    let client = database.client();
    let sql = "SELECT getSetting('max_threads')::UInt64";
    let default = client.query(sql).fetch_one::<u64>().await.unwrap();
    assert_ne!(default, 7);
    let changed =
        client.query(sql).with_setting("max_threads", "7").fetch_one::<u64>().await.unwrap();
    assert_eq!(changed, 7);
    assert_eq!(client.query(sql).fetch_one::<u64>().await.unwrap(), default);
}

#[tokio::test]
async fn raw_bytes_are_inserted_with_the_settings_the_consumer_uses() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100").await;
    let client = database.client();
    let rows: Vec<u8> = (0..1000_u64).flat_map(u64::to_le_bytes).collect();
    let settings = [
        ("async_insert", "0"),
        ("insert_deduplicate", "1"),
        ("wait_end_of_query", "1"),
        ("input_format_null_as_default", "0"),
        ("input_format_skip_unknown_fields", "0"),
        ("date_time_overflow_behavior", "throw"),
        ("materialized_views_ignore_errors", "0"),
    ];
    // The same token twice, then another one.
    for (token, rows_after) in [("a", "1000\n"), ("a", "1000\n"), ("b", "2000\n")] {
        let mut insert = client.insert_formatted_with("INSERT INTO t (id) FORMAT RowBinary");
        for (name, value) in settings {
            insert = insert.with_setting(name, value);
        }
        insert = insert.with_setting("insert_deduplication_token", token);
        insert.send(rows.clone().into()).await.unwrap();
        insert.end().await.unwrap();
        assert_eq!(database.ok("SELECT count() FROM t").await, rows_after, "{token}");
    }
}
