//! What runs and what does not, over plain HTTP.

use crate::support::{Answer, database};
use std::io::Write as _;

#[tokio::test]
async fn broken_text_is_never_a_silent_success() {
    let Some(database) = database().await else { return };
    let mut lz4 = lz4_frame(b"SELECT 1");
    lz4.truncate(20);
    let texts: [&[u8]; 12] = [
        b"",
        b" ",
        b"-- nothing",
        b"`abc",
        b"\"abc",
        b"'abc",
        b"1",
        b"SELECT",
        b"INSERT INTO t",
        b"\xff\xfe",
        b"SELECT `x",
        &lz4,
    ];
    for text in texts {
        let answer = database.post(&[], text.to_vec()).await;
        assert_eq!((answer.status, answer.code()), (400, 62), "{text:?}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_syntax_error_says_where_it_is() {
    let Some(database) = database().await else { return };
    let answer = database.post(&[], "SELECT 1 FROMM x y").await;
    assert_eq!(answer.code(), 62);
    assert!(answer.text.contains("failed at position"), "{}", answer.text);
}

#[tokio::test]
async fn one_statement_runs_at_a_time() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (id UInt64) ENGINE = Memory").await;
    for sql in [
        "SELECT 1; SELECT 2",
        "DROP TABLE t; SELECT 'x",
        "DROP TABLE t; SELECT 1",
        "SELECT 1; DROP TABLE t;",
    ] {
        let answer = database.post(&[("database", &database.name)], sql).await;
        assert_eq!(answer.code(), 62, "{sql}: {}", answer.text);
    }
    assert_eq!(database.ok("SELECT count() FROM t;").await, "0\n");
    assert_eq!(database.ok("SELECT 1; -- done").await, "1\n");
}

#[tokio::test]
async fn statements_beyond_the_tables_are_refused() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (a String) ENGINE = Memory").await;
    for sql in [
        "SET max_threads = 1",
        "USE system",
        "SYSTEM FLUSH LOGS",
        "KILL QUERY WHERE 1",
        "SELECT 1 INTO OUTFILE '/tmp/embedded-clickhouse-test'",
        "INSERT INTO FUNCTION file('x', 'TSV', 'a String') VALUES ('x')",
        "INSERT INTO FUNCTION file('x', 'TSV', 'a String') SELECT 'x'",
        "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT LineAsString",
        "INSERT INTO t SETTINGS async_insert = 1 VALUES ('x')",
        "CREATE FUNCTION f AS x -> x",
        "CREATE USER somebody",
        "CREATE NAMED COLLECTION c AS a = 1",
        "CREATE TABLE f (a String) ENGINE = File(TSV)",
        "CREATE TABLE u (a String) ENGINE = URL('http://127.0.0.1:1/', TSV)",
        "CREATE TABLE k (a String) ENGINE = Kafka('127.0.0.1:1', 't', 'g', 'TSV')",
        "CREATE DATABASE d ENGINE = Filesystem('/etc')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT file('/etc/passwd')",
        "INSERT INTO t SELECT file('/etc/passwd')",
        "ATTACH TABLE t FROM '/etc'",
        "BACKUP DATABASE default TO File('/tmp/x')",
    ] {
        let answer = database.post(&[("database", &database.name)], sql).await;
        assert!([392, 497].contains(&answer.code()), "{sql}: {} {}", answer.status, answer.text);
    }
    assert_eq!(database.ok("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn tables_views_and_databases_are_the_services_to_change() {
    let Some(database) = database().await else { return };
    let name = &database.name;
    for sql in [
        "CREATE TABLE t (id UInt64, v Int64) ENGINE = ReplacingMergeTree(v) PARTITION BY id % 2 ORDER BY id",
        "ALTER TABLE t ADD COLUMN note String DEFAULT 'n'",
        "CREATE VIEW w AS SELECT id, sum(v) AS total FROM t FINAL GROUP BY id",
        "CREATE MATERIALIZED VIEW m ENGINE = SummingMergeTree ORDER BY id AS SELECT id, v FROM t",
        "INSERT INTO t (id, v) SELECT number, number FROM numbers(10)",
        "INSERT INTO t (id, v) SETTINGS insert_deduplicate = 0 VALUES (1, 100)",
        "OPTIMIZE TABLE t FINAL",
        "ALTER TABLE t DELETE WHERE id = 3 SETTINGS mutations_sync = 1",
        "RENAME TABLE t TO t2",
        "EXPLAIN SELECT 1",
        "DROP VIEW m",
        "TRUNCATE TABLE t2",
        "DROP TABLE t2 SYNC",
    ] {
        // The engine itself counts a statement's own synchronous settings as a change of policy.
        let refused = sql.contains("mutations_sync");
        let answer = database.post(&[("database", name)], sql).await;
        assert_eq!(answer.code(), if refused { 392 } else { 0 }, "{sql}: {}", answer.text);
    }
    database.ok(&format!("DROP DATABASE {name}")).await;
}

#[tokio::test]
async fn a_get_reads_and_changes_nothing() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (id UInt64) ENGINE = Memory").await;
    let get = async |sql: &str| {
        let parameters = [
            ("query", sql),
            ("database", &database.name),
            ("user", database.engine.service_user()),
            ("password", database.engine.service_password()),
        ];
        let url = reqwest::Url::parse_with_params(&database.engine.url(), parameters).unwrap();
        Answer::of(reqwest::get(url).await.unwrap()).await
    };
    assert_eq!(get("SELECT count() FROM t").await.text, "0\n");
    for sql in
        ["INSERT INTO t VALUES (1)", "INSERT INTO t SELECT 1", "DROP TABLE t", "SET readonly = 0"]
    {
        assert!([164, 392].contains(&get(sql).await.code()), "{sql}");
    }
    assert_eq!(get("SELECT count() FROM t").await.text, "0\n");
    for path in ["", "ping", "replicas_status"] {
        let url = format!("{}/{path}", database.engine.url());
        assert_eq!(reqwest::get(url).await.unwrap().text().await.unwrap(), "Ok.\n");
    }
}

#[tokio::test]
async fn settings_in_the_url_are_checked() {
    let Some(database) = database().await else { return };
    for (name, value, expected) in [
        ("max_threads", "1", 0),
        ("wait_end_of_query", "1", 0),
        ("async_insert", "0", 0),
        ("async_insert", "1", 164),
        ("dialect", "prql", 164),
        ("implicit_select", "1", 164),
        ("Max-Threads", "1", 36),
        ("max_threads", "many", 27),
        ("no_such_setting", "1", 115),
        ("role", "reader", 36),
    ] {
        let answer = database.post(&[(name, value)], "SELECT 1").await;
        assert_eq!(answer.code(), expected, "{name}={value}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_content_encoding_is_decoded_or_refused() {
    let Some(database) = database().await else { return };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request =
            reqwest::Client::new().post(database.engine.url()).header("Content-Encoding", encoding);
        let request = request
            .basic_auth(database.engine.service_user(), Some(database.engine.service_password()));
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    assert_eq!(send("lz4", lz4_frame(b"SELECT 41 + 1")).await.text, "42\n");
    for encoding in ["gzip", "zstd", "lz4, gzip"] {
        assert_eq!(send(encoding, b"SELECT 1".to_vec()).await.code(), 89, "{encoding}");
    }
    assert_eq!(send("lz4", b"SELECT 1".to_vec()).await.code(), 271);
}

fn lz4_frame(data: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
