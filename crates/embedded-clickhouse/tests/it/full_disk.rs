//! A full disk, and what is left of data that a disk has lost.

use crate::process::{Own, program, start};
use crate::support::{DEADLINE, client, code, library_available};
use clickhouse::{Client, Row};
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::small_disk::SmallDisk;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DISK_BYTES: u64 = 256 * 1024 * 1024;
/// How often the disk is filled up while parts are written. Without the facade's `write` about one
/// time in three damaged a part.
const TIMES: u64 = 20;
const ROWS: u64 = 10;

#[derive(Row, Serialize)]
struct Number {
    id: u64,
}

/// An engine on a disk that can be filled up, where one can be mounted.
fn on_small_disk() -> Option<(Own, SmallDisk)> {
    let disk = SmallDisk::require_or_skip(DISK_BYTES)?;
    let engine = start(|options| options.data_dir = disk.path().join("data"))?;
    Some((engine, disk))
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn says(engine: &EmbeddedClickHouse, words: &str) {
    until(words, async || log(engine).contains(words)).await;
}

pub(crate) fn log(engine: &EmbeddedClickHouse) -> String {
    std::fs::read_to_string(engine.log_file()).unwrap()
}

/// How often writes have begun to wait for space.
fn waits(engine: &EmbeddedClickHouse) -> usize {
    log(engine).matches("the disk is full").count()
}

/// Creating a table writes its definition without asking first whether there is space.
pub(crate) fn create_table(
    client: &Client,
) -> tokio::task::JoinHandle<clickhouse::error::Result<()>> {
    let client = client.clone();
    let sql = "CREATE TABLE t (id UInt64) ENGINE = ReplacingMergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000";
    tokio::spawn(async move { client.query(sql).execute().await })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_space_waits_for_it_and_is_then_done() {
    let Some((engine, disk)) = on_small_disk() else { return };
    let client = client(&engine);
    disk.fill().unwrap();
    let created = create_table(&client);
    says(&engine, "the disk is full").await;
    assert!(!created.is_finished());
    assert_eq!(client.query("SELECT 1").fetch_one::<u8>().await.unwrap(), 1, "queries go on");
    disk.free().unwrap();
    created.await.unwrap().unwrap();
    says(&engine, "there is space again").await;
    engine.kill().unwrap();
    engine.start_again().unwrap();
    assert_eq!(client.query("SELECT count() FROM t").fetch_one::<u64>().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_waits_for_space_can_be_stopped() {
    let Some((engine, disk)) = on_small_disk() else { return };
    let client = client(&engine);
    disk.fill().unwrap();
    let created = create_table(&client);
    says(&engine, "the disk is full").await;
    assert!(!engine.stop().unwrap(), "what it was to do is not done");
    assert!(created.await.unwrap().is_err());
    disk.free().unwrap();
    engine.start_again().unwrap();
    assert_eq!(client.query("EXISTS t").fetch_one::<u8>().await.unwrap(), 0);
}

#[tokio::test]
async fn a_start_that_waits_for_space_ends_with_its_parent() {
    if !library_available() {
        return;
    }
    let Some(disk) = SmallDisk::require_or_skip(DISK_BYTES) else { return };
    let data_dir = disk.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    disk.fill().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut child =
        program(&data_dir).stdin(Stdio::piped()).stderr(log.reopen().unwrap()).spawn().unwrap();
    let log = || std::fs::read_to_string(log.path()).unwrap();
    until("it waits", async || log().contains("the disk is full")).await;
    assert!(child.try_wait().unwrap().is_none(), "{}", log());
    drop(child.stdin.take());
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it still waits: {}", log());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", log());
    disk.free().unwrap();
    let _engine = start(|options| options.data_dir = data_dir);
}

/// Inserts batch after batch, each until it is acknowledged.
async fn insert_until(
    stop: Arc<AtomicBool>,
    client: Client,
    writer: u64,
    acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
) -> u64 {
    for batch in 0.. {
        let send = async || {
            let mut insert = client
                .insert::<Number>("t")
                .await?
                .with_setting("insert_deduplication_token", format!("{writer}/{batch}"));
            for row in 0..ROWS {
                insert.write(&Number { id: (batch * ROWS + row) * 2 + writer }).await?;
            }
            insert.end().await
        };
        while let Err(error) = send().await {
            // Not enough space, said before anything was written.
            assert_eq!(code(&error), 243, "{error}");
            refused.fetch_add(1, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                return batch;
            }
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            return batch + 1;
        }
    }
    unreachable!("there are numbers enough")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_disk_fills_up_while_parts_are_written() {
    let Some((engine, disk)) = on_small_disk() else { return };
    let client = client(&engine).with_validation(false);
    create_table(&client).await.unwrap().unwrap();
    let (stop, acknowledged, refused) =
        <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (acknowledged, refused) = (Arc::clone(&acknowledged), Arc::clone(&refused));
            tokio::spawn(insert_until(
                Arc::clone(&stop),
                client.clone(),
                writer,
                acknowledged,
                refused,
            ))
        })
        .collect();
    for time in 1..=TIMES {
        let count = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
        let (inserts, waits) = (count(&acknowledged) + 5 + time % 7, waits(&engine));
        until("the inserts get on", async || count(&acknowledged) >= inserts).await;
        let refusals = count(&refused);
        disk.fill().unwrap();
        let felt = async || count(&refused) > refusals || self::waits(&engine) > waits;
        until("the disk is full", felt).await;
        disk.free().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut rows = 0;
    for writer in writers {
        rows += writer.await.unwrap() * ROWS;
    }
    for _ in 0..2 {
        let count = "SELECT count() FROM t FINAL WHERE NOT ignore(*)";
        assert_eq!(client.query(count).fetch_one::<u64>().await.unwrap(), rows);
        let check = "CHECK TABLE t SETTINGS check_query_single_value_result = 1";
        assert_eq!(client.query(check).fetch_one::<u8>().await.unwrap(), 1);
        engine.kill().unwrap();
        engine.start_again().unwrap();
    }
    let set_aside = "SELECT count() FROM system.detached_parts";
    assert_eq!(client.query(set_aside).fetch_one::<u64>().await.unwrap(), 0);
}

/// The file of marks of the part that a table has, or of its last one.
fn marks(data_dir: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.join("engine/store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_stem().is_some_and(|stem| stem == "data")
                && path.extension().is_some_and(|extension| extension != "bin")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_does_not_start_without_rows_that_it_had_until_a_person_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let Some(engine) = start(|options| options.data_dir = data_dir.clone()) else { return };
    let client = client(&engine);
    create_table(&client).await.unwrap().unwrap();
    client.query("INSERT INTO t VALUES (1)").execute().await.unwrap();
    engine.kill().unwrap();
    std::fs::File::options().write(true).open(marks(&data_dir)).unwrap().set_len(0).unwrap();
    let refused = engine.start_again().expect_err("a part is damaged").to_string();
    let flag = data_dir.canonicalize().unwrap().join("engine/flags/force_restore_data");
    assert!(refused.contains(&format!("touch '{}'", flag.display())), "{refused}");
    assert!(log(&engine).contains("TOO_MANY_UNEXPECTED_DATA_PARTS"), "{}", log(&engine));
    std::fs::write(&flag, "").unwrap();
    engine.start_again().unwrap();
    assert!(!flag.exists(), "it counts for one start");
    assert_eq!(client.query("SELECT count() FROM t").fetch_one::<u64>().await.unwrap(), 0);
    let set_aside = "SELECT count() FROM system.detached_parts WHERE reason = 'broken-on-start'";
    assert_eq!(client.query(set_aside).fetch_one::<u64>().await.unwrap(), 1);
}
