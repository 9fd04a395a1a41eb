//! Results in the formats that people and programs ask for.

use crate::support::database;

#[tokio::test]
async fn each_format_is_one_document() {
    let Some(database) = database().await else { return };
    // More rows than one chunk of the engine has.
    let sql = "SELECT number AS n FROM numbers(200000)";
    let get = async |format: &str| {
        let answer = database.post(&[("default_format", format)], sql).await;
        assert_eq!((answer.status, answer.header("X-ClickHouse-Format")), (200, format));
        answer
    };
    let json: serde_json::Value = serde_json::from_slice(&get("JSON").await.bytes).unwrap();
    assert_eq!(
        (json["rows"].as_u64(), json["data"].as_array().unwrap().len()),
        (Some(200_000), 200_000)
    );
    assert_eq!(get("CSVWithNames").await.text.matches("\"n\"").count(), 1);
    assert_eq!(get("TabSeparatedWithNames").await.text.lines().count(), 200_001);
    assert_eq!(get("TSV").await.text.lines().count(), 200_000);
    assert_eq!(get("JSONEachRow").await.text.lines().count(), 200_000);
    assert_eq!(get("RowBinary").await.bytes.len(), 8 * 200_000);
    let header = b"\x01\x01n\x06UInt64".len();
    assert_eq!(get("RowBinaryWithNamesAndTypes").await.bytes.len(), header + 8 * 200_000);
    let native = get("Native").await.bytes;
    let back = database
        .post(&[("query", "INSERT INTO FUNCTION null('n UInt64') FORMAT Native")], native.clone())
        .await;
    assert_eq!(back.code(), 392, "table functions are not written to");
    database.ok("CREATE TABLE t (n UInt64) ENGINE = Memory").await;
    let back = database
        .post(&[("query", "INSERT INTO t FORMAT Native"), ("database", &database.name)], native)
        .await;
    assert_eq!(back.status, 200, "{}", back.text);
    assert_eq!(database.ok("SELECT count(), sum(n) FROM t").await, "200000\t19999900000\n");
}

#[tokio::test]
async fn the_statements_format_wins_over_the_default() {
    let Some(database) = database().await else { return };
    for sql in [
        "SELECT 1 AS a FORMAT JSONEachRow",
        "SELECT 1 AS a SETTINGS max_threads = 1 FORMAT JSONEachRow;",
        "SELECT 1 AS a FORMAT /* x */ JSONEachRow SETTINGS max_threads = 1",
    ] {
        let answer = database.post(&[("default_format", "CSV")], sql).await;
        assert_eq!(
            (answer.text.as_str(), answer.header("X-ClickHouse-Format")),
            ("{\"a\":1}\n", "JSONEachRow"),
            "{sql}"
        );
    }
    // Half of a statement in the URL and half in the body.
    let answer = database.post(&[("query", "SELECT 1 AS a")], "FORMAT JSONEachRow").await;
    assert_eq!(answer.text, "{\"a\":1}\n");
    assert_eq!(database.post(&[], "SELECT 1 FORMAT Nothing").await.code(), 73);
}

#[tokio::test]
async fn parameters_come_from_url_and_form() {
    let Some(database) = database().await else { return };
    let sql = "SELECT {a:UInt8} + {b:UInt8}";
    let answer = database.post(&[("param_a", "1"), ("param_b", "2")], sql).await;
    assert_eq!(answer.text, "3\n");
    assert_eq!(database.post(&[("param_a", "1")], sql).await.code(), 456);
    database.ok("CREATE TABLE t (a UInt8, b String) ENGINE = Memory").await;
    let insert = [
        ("query", "INSERT INTO {t:Identifier} FORMAT TSV"),
        ("param_t", "t"),
        ("database", &database.name),
    ];
    assert_eq!(database.post(&insert, "1\tx\n").await.status, 200);
    assert_eq!(database.ok("SELECT * FROM t").await, "1\tx\n");
}

#[tokio::test]
async fn inline_data_is_inserted_in_every_form() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (a UInt8, b String) ENGINE = Memory").await;
    let of = [("database", database.name.as_str())];
    for sql in [
        "INSERT INTO t VALUES (1, 'FORMAT TSV'), (2, 'it''s')",
        "INSERT INTO t (b, a) VALUES ('x', 1 + 1)",
        "INSERT INTO t FORMAT JSONEachRow {\"a\":3,\"b\":\"y\"}\n{\"a\":4,\"b\":\"z\"}",
        "INSERT INTO t FORMAT CSV\n5,\"q\"\n",
    ] {
        let answer = database.post(&of, sql).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
    }
    let url = [("query", "INSERT INTO t VALUES"), of[0]];
    assert_eq!(database.post(&url, "(6, 'r')").await.status, 200);
    assert_eq!(database.ok("SELECT count(), sum(a) FROM t").await, "7\t23\n");
    let none = [("query", "INSERT INTO t FORMAT TSV"), of[0]];
    assert_eq!(database.post(&none, "").await.status, 200);
    assert_eq!(database.ok("SELECT count() FROM t").await, "7\n");
}

#[tokio::test]
async fn an_answer_is_compressed_when_asked() {
    let Some(database) = database().await else { return };
    let answer = database
        .post(&[("compress", "1")], "SELECT number FROM numbers(100000) FORMAT RowBinary")
        .await;
    let mut decoder = embedded_clickhouse::framing::Decoder::new(true);
    let mut found = Vec::new();
    decoder
        .push(&answer.bytes, |data| {
            found.extend_from_slice(data);
            Ok(())
        })
        .unwrap();
    decoder.finish().unwrap();
    assert!(found == (0..100_000_u64).flat_map(u64::to_le_bytes).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_summary_counts_what_was_read() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    database.ok("INSERT INTO t SELECT number FROM numbers(1000)").await;
    let answer = database
        .post(
            &[("database", &database.name), ("query_id", "mine")],
            "SELECT sum(n) FROM t FORMAT JSON",
        )
        .await;
    let summary: serde_json::Value =
        serde_json::from_str(answer.header("X-ClickHouse-Summary")).unwrap();
    assert_eq!(summary["read_rows"], "1000");
    assert_eq!(answer.header("X-ClickHouse-Query-Id"), "mine");
}
