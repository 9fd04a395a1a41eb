//! The process: killed, stopped, started again, and started twice.

use crate::support::{BINARY, DEADLINE, client, library_available};
use clickhouse::Row;
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::libchdb;
use serde::Serialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Row, Serialize)]
struct Number {
    id: u64,
}

/// An engine with options of its own.
pub(crate) struct Own {
    engine: EmbeddedClickHouse,
    _directory: tempfile::TempDir,
}

impl std::ops::Deref for Own {
    type Target = EmbeddedClickHouse;

    fn deref(&self) -> &EmbeddedClickHouse {
        &self.engine
    }
}

fn options(directory: &Path) -> EmbeddedClickHouseOptions {
    EmbeddedClickHouseOptions {
        binary: Some(PathBuf::from(BINARY)),
        library: libchdb::ensure(true).unwrap(),
        data_dir: directory.join("data"),
        listen: None,
        service_password: "s".to_owned(),
        reader_password: "r".to_owned(),
        reader_database: "tallymark".to_owned(),
        max_memory: None,
        log_file: directory.join("log"),
        restart: false,
    }
}

pub(crate) fn start(change: impl FnOnce(&mut EmbeddedClickHouseOptions)) -> Option<Own> {
    if !library_available() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    change(&mut options);
    Some(Own { engine: EmbeddedClickHouse::start(options).unwrap(), _directory: directory })
}

pub(crate) fn engine_for(reader_database: &str) -> Option<Own> {
    start(|options| options.reader_database = reader_database.to_owned())
}

/// Inserts batches of 1000 until it fails; every batch that was acknowledged is noted.
async fn insert_until_it_fails(
    client: clickhouse::Client,
    next: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
) {
    loop {
        let batch = next.fetch_add(1, Ordering::Relaxed);
        let send = async {
            let mut insert = client.insert::<Number>("t").await?;
            for id in batch * 1000..(batch + 1) * 1000 {
                insert.write(&Number { id }).await?;
            }
            insert.end().await
        };
        if send.await.is_err() {
            return;
        }
        acknowledged.lock().unwrap().push(batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let Some(engine) = start(|_| ()) else { return };
    let client = client(&engine).with_validation(false);
    client
        .query("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        .execute()
        .await
        .unwrap();
    let (next, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    for round in 1..=3 {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                tokio::spawn(insert_until_it_fails(
                    client.clone(),
                    Arc::clone(&next),
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        let deadline = Instant::now() + DEADLINE;
        while acknowledged.lock().unwrap().len() < 20 * round {
            assert!(Instant::now() < deadline, "the inserts do not get on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.kill().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        engine.start_again().unwrap();
        let sql = "SELECT intDiv(id, 1000) AS batch FROM t GROUP BY batch HAVING count() = 1000 AND uniqExact(id) = 1000";
        let stored = client.query(sql).fetch_all::<u64>().await.unwrap();
        let missing: Vec<_> = acknowledged
            .lock()
            .unwrap()
            .iter()
            .filter(|batch| !stored.contains(batch))
            .copied()
            .collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        let torn = "SELECT count() FROM (SELECT intDiv(id, 1000) AS batch FROM t GROUP BY batch HAVING count() != 1000)";
        assert_eq!(client.query(torn).fetch_one::<u64>().await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_open_statements_finish_and_keeps_the_data() {
    let Some(engine) = start(|_| ()) else { return };
    let client = client(&engine).with_validation(false);
    client
        .query("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        .execute()
        .await
        .unwrap();
    client.query("INSERT INTO t SELECT number FROM numbers(1000)").execute().await.unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.query("SELECT sum(id) + sleep(2) * 0 FROM t").fetch_one::<u64>().await }
    });
    let running = "SELECT count() FROM system.processes WHERE query LIKE '%sleep(2)%' AND query NOT LIKE '%processes%'";
    while client.query(running).fetch_one::<u64>().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.stop().unwrap(), "{}", std::fs::read_to_string(engine.log_file()).unwrap());
    assert_eq!(slow.await.unwrap().unwrap(), 499_500);
    let log = std::fs::read_to_string(engine.log_file()).unwrap();
    assert!(log.contains("the engine is closed"), "{log}");
    engine.start_again().unwrap();
    assert_eq!(client.query("SELECT count() FROM t").fetch_one::<u64>().await.unwrap(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_engine_comes_back_on_its_port() {
    let Some(engine) = start(|options| options.restart = true) else { return };
    let client = client(&engine);
    for _ in 0..2 {
        let killed = engine.pid();
        engine.kill().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while engine.pid() == killed || client.query("SELECT 1").execute().await.is_err() {
            assert!(Instant::now() < deadline, "it does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(engine.stop().unwrap());
    assert!(client.query("SELECT 1").execute().await.is_err());
}

#[test]
fn a_second_process_on_the_same_data_says_so() {
    let Some(engine) = start(|_| ()) else { return };
    let directory = engine._directory.path();
    let second = EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
        log_file: directory.join("second"),
        ..options(directory)
    });
    let error = second.expect_err("the data directory is taken").to_string();
    assert!(error.contains("is in use by another process"), "{error}");
}

/// The program, which ends with its standard input.
pub(crate) fn program(data_dir: &Path) -> Command {
    let mut program = Command::new(BINARY);
    program.args(["--listen", "0", "--exit-with-parent"]);
    program.args(["--service-password", "s", "--reader-password", "r"]);
    program.arg("--library").arg(libchdb::ensure(true).unwrap());
    program.arg("--data-dir").arg(data_dir);
    program
}

#[test]
fn the_port_file_holds_the_address_and_the_process_ends_with_its_parent() {
    if !library_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port_file = directory.path().join("address");
    let mut child = program(&directory.path().join("data"))
        .arg("--port-file")
        .arg(&port_file)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !port_file.exists() {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "it does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let address = std::fs::read_to_string(&port_file).unwrap();
    let address: std::net::SocketAddr = address.trim().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0);
    std::net::TcpStream::connect(address).unwrap();
    drop(child.stdin.take());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
}

#[test]
fn an_address_that_others_could_reach_is_refused() {
    let output = Command::new(BINARY)
        .args([
            "--listen",
            "0.0.0.0:8123",
            "--library",
            "x",
            "--data-dir",
            "x",
            "--service-password",
            "s",
            "--reader-password",
            "r",
        ])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("not a loopback address"), "{error}");
}
