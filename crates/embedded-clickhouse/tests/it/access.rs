//! The two users, and what the reader cannot do.

use crate::support::database;

#[tokio::test]
async fn only_the_two_users_get_in() {
    let Some(database) = database().await else { return };
    let (service, password) = (database.engine.service_user(), database.engine.service_password());
    for (user, password, expected) in [
        (service, password, 0),
        (service, "", 516),
        (service, database.engine.reader_password(), 516),
        ("default", "", 516),
        ("", "", 516),
    ] {
        let answer = database.post_as(user, password, &[], "SELECT 1").await;
        assert_eq!(answer.code(), expected, "{user}");
        assert_eq!(answer.status, if expected == 0 { 200 } else { 403 });
    }
    let bare =
        reqwest::Client::new().post(database.engine.url()).body("SELECT 1").send().await.unwrap();
    assert_eq!(bare.status(), 403);
    let headers = reqwest::Client::new()
        .post(database.engine.url())
        .header("X-ClickHouse-User", service)
        .header("X-ClickHouse-Key", password)
        .header("X-ClickHouse-Format", "JSONEachRow")
        .body("SELECT 1 AS one");
    assert_eq!(headers.send().await.unwrap().text().await.unwrap(), "{\"one\":1}\n");
}

#[tokio::test]
async fn the_reader_reads() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await;
    database.ok("CREATE VIEW v AS SELECT sum(id) AS total FROM t").await;
    database.ok("INSERT INTO t VALUES (1), (2)").await;
    for (sql, expected) in [
        ("SELECT id FROM t ORDER BY id", "1\n2\n"),
        ("SELECT total FROM v", "3\n"),
        ("WITH 1 AS a SELECT a", "1\n"),
        ("SHOW TABLES", "t\nv\n"),
        ("EXISTS TABLE t", "1\n"),
        ("SELECT 'file(1)', profile FROM (SELECT 2 AS profile)", "file(1)\t2\n"),
        ("SELECT currentRoles()", "['reader']\n"),
    ] {
        let answer = database.read(sql).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, expected), "{sql}");
    }
}

#[tokio::test]
async fn the_reader_cannot_write_nor_leave_its_cage() {
    let Some(database) = database().await else { return };
    database.ok("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await;
    let refusals = [62, 164, 392, 497];
    for sql in [
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t SELECT 1",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "ALTER TABLE t DELETE WHERE 1",
        "OPTIMIZE TABLE t FINAL",
        "CREATE TABLE u (id UInt64) ENGINE = Memory",
        "CREATE TEMPORARY TABLE u (id UInt64)",
        "CREATE VIEW w AS SELECT 1",
        "SET readonly = 0",
        "SET ROLE service",
        "SELECT 1; DROP TABLE t",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT `fi\\x6ce`('/etc/passwd')",
        "SELECT \"file\"('/etc/passwd')",
        "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
        "SELECT /* ' */ file('/etc/passwd') /* ' */",
        "SELECT 1 // '\n, file('/etc/passwd') // '",
        "SELECT ‘'’, file('/etc/passwd'), ‘'’",
        "SELECT $x$'$x$, file('/etc/passwd'), $x$'$x$",
        "EXPLAIN SELECT file('/etc/passwd')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:1', 'system', 'one')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM executable('cat', 'TSV', 'a String')",
        "SELECT * FROM system.users",
        "SHOW CREATE USER default",
        "SELECT 1 INTO OUTFILE '/tmp/embedded-clickhouse-test'",
        "KILL QUERY WHERE 1",
        "SYSTEM SHUTDOWN",
    ] {
        let answer = database.read(sql).await;
        assert!(refusals.contains(&answer.code()), "{sql}: {} {}", answer.status, answer.text);
    }
    assert_eq!(database.ok("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn the_readers_limits_cannot_be_raised() {
    let Some(database) = database().await else { return };
    let (user, password) = (database.engine.reader_user(), database.engine.reader_password());
    let limit = async |asked: &str| {
        let sql = "SELECT getSetting('max_execution_time')::UInt64, getSetting('readonly')::UInt64";
        database.post_as(user, password, &[("max_execution_time", asked)], sql).await.text
    };
    assert_eq!(limit("5").await, "5\t1\n");
    assert_eq!(limit("60").await, "60\t1\n");
    assert_eq!(limit("61").await, "60\t1\n");
    assert_eq!(limit("0").await, "60\t1\n");
    for (name, value) in [
        ("readonly", "0"),
        ("format_template_row", "/etc/passwd"),
        ("additional_result_filter", "1"),
        ("allow_ddl", "1"),
    ] {
        let answer = database.post_as(user, password, &[(name, value)], "SELECT 1").await;
        assert_eq!(answer.code(), 164, "{name}");
    }
}

#[tokio::test]
async fn the_reader_sees_its_own_databases_only() {
    // The shared engine lets the reader read everything, so this one is set up as in production.
    let Some(engine) = crate::process::engine_for("tallymark") else { return };
    let run = async |user: &str, password: &str, sql: &str| {
        let request = reqwest::Client::new()
            .post(engine.url())
            .basic_auth(user, Some(password))
            .body(sql.to_owned());
        crate::support::Answer::of(request.send().await.unwrap()).await
    };
    let service = async |sql: &str| {
        let answer = run(engine.service_user(), engine.service_password(), sql).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
    };
    for database in ["tallymark", "tallymark2", "private"] {
        service(&format!("CREATE DATABASE {database}")).await;
        service(&format!("CREATE TABLE {database}.t (id UInt64) ENGINE = Memory")).await;
    }
    let reader = async |sql: &str| run(engine.reader_user(), engine.reader_password(), sql).await;
    assert_eq!(reader("SELECT count() FROM tallymark.t").await.text, "0\n");
    assert_eq!(reader("SELECT count() FROM system.tables WHERE name = 't'").await.text, "1\n");
    for table in
        ["private.t", "tallymark2.t", "merge('private', 't')", "view(SELECT * FROM private.t)"]
    {
        let answer = reader(&format!("SELECT count() FROM {table}")).await;
        assert!([497, 636].contains(&answer.code()), "{table}: {}", answer.text);
    }
    for sql in [
        "SHOW CREATE TABLE private.t",
        "DESCRIBE TABLE private.t",
        "SELECT hasColumnInTable('private', 't', 'id')",
    ] {
        assert_eq!(reader(sql).await.code(), 497, "{sql}");
    }
}
