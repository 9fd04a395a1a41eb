//! What only the embedded log promises: one process, one directory, durable through SIGKILL.

use crate::support::{
    PARTITIONS, PATIENCE, Reader, Rig, batch, embedded_options, numbers, partition_of, publish,
};
use chrono::{DateTime, TimeDelta, Utc};
use event_log::embedded::{EmbeddedLog, EmbeddedLogLock, EmbeddedLogOptions, EmbeddedReader};
use event_log::{
    EventLogConsumer, EventLogProducer, EventLogReader, LogError, PublishError, Watermarks,
};
use rusqlite::Connection;
use service_kit::clock::FixedClock;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn raw(path: &Path) -> Connection {
    Connection::open(path.join("log.sqlite")).unwrap()
}

fn producer(log: &EmbeddedLog) -> Arc<dyn EventLogProducer> {
    Arc::new(log.producer())
}

fn reader(log: &EmbeddedLog, group: &str) -> Reader {
    Reader { consumer: Box::new(log.consumer(group).unwrap()) }
}

fn start() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn with_clock(path: &Path) -> (FixedClock, EmbeddedLogOptions) {
    let clock = FixedClock::new(start());
    (clock.clone(), EmbeddedLogOptions { clock: Arc::new(clock), ..embedded_options(path) })
}

#[test]
fn everything_survives_a_restart() {
    let rig = Rig::embedded();
    let mut reader = rig.consumer("a");
    publish(&rig.producer(), numbers(0..90)).unwrap();
    reader.assigned();
    reader.read(90);
    reader.consumer.commit(&[(0, 30), (1, 10)]).unwrap();
    drop(reader);
    rig.close();
    let mut reader = rig.consumer("a");
    let starts: Vec<_> = reader.assigned().iter().map(|a| a.start).collect();
    assert_eq!(starts, [30, 10, 0]);
    assert_eq!(reader.consumer.watermarks(2).unwrap(), Watermarks { low: 0, high: 30 });
    reader.read(50);
}

#[test]
fn a_clean_close_leaves_one_file() {
    let rig = Rig::embedded();
    publish(&rig.producer(), numbers(0..90)).unwrap();
    rig.close();
    assert!(!rig.path().join("log.sqlite-wal").exists(), "the write-ahead log was emptied");
}

#[test]
fn a_second_opener_is_refused() {
    let rig = Rig::embedded();
    let log = rig.log();
    let error = EmbeddedLog::open(embedded_options(rig.path())).unwrap_err();
    assert!(
        matches!(&error, LogError::Contract(text) if text.contains("another process")),
        "{error}"
    );
    drop(log);
    rig.close();
    EmbeddedLog::open(embedded_options(rig.path())).unwrap();
}

#[test]
fn who_holds_the_lock_keeps_writers_out_and_deletes_nothing() {
    let rig = Rig::embedded();
    publish(&rig.producer(), numbers(0..90)).unwrap();
    assert!(matches!(EmbeddedLogLock::take(rig.path()), Err(LogError::Contract(_))), "it is open");
    rig.close();
    let content = || std::fs::read(rig.path().join("log.sqlite")).unwrap();
    let before = content();
    let lock = EmbeddedLogLock::take(rig.path()).unwrap();
    let refused = EmbeddedLog::open(embedded_options(rig.path()));
    assert!(matches!(refused, Err(LogError::Contract(_))));
    assert_eq!(EmbeddedReader::open(rig.path(), "a").unwrap().partition_count(), PARTITIONS);
    drop(lock);
    assert!(content() == before);
    EmbeddedLog::open(embedded_options(rig.path())).unwrap();
}

#[test]
fn another_partition_count_is_refused() {
    let rig = Rig::embedded();
    rig.log();
    rig.close();
    let refused = |partitions| {
        let options = EmbeddedLogOptions { partitions, ..embedded_options(rig.path()) };
        matches!(EmbeddedLog::open(options), Err(LogError::Contract(_)))
    };
    assert!(refused(PARTITIONS + 1) && refused(0) && refused(1025));
    rig.log();
}

#[test]
fn a_group_has_one_member() {
    let rig = Rig::embedded();
    let log = rig.log();
    let first = log.consumer("a").unwrap();
    assert!(matches!(log.consumer("a"), Err(LogError::Contract(_))));
    drop(first);
    log.consumer("a").unwrap();
}

#[test]
fn a_record_for_a_partition_that_does_not_exist_is_not_confirmed() {
    let rig = Rig::embedded();
    let refused = publish(&rig.producer(), batch([(0, "a"), (PARTITIONS, "b")]));
    assert!(matches!(refused, Err(PublishError::Unconfirmed(_))));
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(0);
}

/// While the writer is held up, requests queue, the queue is bounded, and all of it becomes one group.
#[test]
fn waiting_requests_become_durable_together() {
    let rig = Rig::embedded();
    let options = EmbeddedLogOptions { queue_batches_max: 50, ..embedded_options(rig.path()) };
    let log = EmbeddedLog::open(options).unwrap();
    let producer = producer(&log);
    let blocker = raw(rig.path());
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting: Vec<_> = (0..50).map(|n| producer.publish(batch([(1, n.to_string())]))).collect();
    let refused = publish(&producer, batch([(1, "51")]));
    assert!(matches!(refused, Err(PublishError::QueueFull)), "{refused:?}");
    blocker.execute_batch("ROLLBACK").unwrap();
    for outcome in waiting {
        crate::support::block_on(outcome).unwrap();
    }
    let groups: i64 =
        blocker.query_row("SELECT count(*) FROM batches", [], |row| row.get(0)).unwrap();
    assert!((1..=2).contains(&groups), "{groups} groups for 50 requests");
    publish(&producer, batch([(1, "51")])).unwrap();
    let mut reader = reader(&log, "a");
    reader.assigned();
    reader.read(51);
}

/// Damage is named with its position and never skipped.
#[test]
fn damaged_records_are_an_error_that_names_them() {
    let damages: [(&str, &str); 4] = [
        (
            "UPDATE batches SET bytes = zeroblob(length(bytes)) WHERE position & 0xffff = 2",
            "offset 2",
        ),
        ("UPDATE batches SET bytes = substr(bytes, 1, 9) WHERE position & 0xffff = 2", "offset 2"),
        ("UPDATE batches SET checksum = checksum + 1 WHERE position & 0xffff = 4", "offset 4"),
        ("UPDATE batches SET appended_at = 0 WHERE position & 0xffff = 0", "offset 0"),
    ];
    for (damage, position) in damages {
        let rig = Rig::embedded();
        for n in 0..3 {
            publish(&rig.producer(), batch([(1, n.to_string()), (1, (n + 10).to_string())]))
                .unwrap();
        }
        rig.close();
        assert_eq!(raw(rig.path()).execute(damage, []).unwrap(), 1);
        let mut reader = rig.consumer("a");
        reader.assigned();
        let error = reader.error();
        let LogError::Permanent { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains("partition 1"), "{source}");
        assert!(source.to_string().contains(position), "{source}");
        assert!(matches!(reader.error(), LogError::Permanent { .. }), "it does not go away");
    }
}

#[test]
fn missing_records_are_a_gap() {
    let rig = Rig::embedded();
    for n in 0..3 {
        publish(&rig.producer(), batch([(1, n.to_string())])).unwrap();
    }
    rig.close();
    assert_eq!(
        raw(rig.path()).execute("DELETE FROM batches WHERE position & 0xffff = 1", []).unwrap(),
        1
    );
    let mut reader = rig.consumer("a");
    reader.assigned();
    assert!(matches!(reader.error(), LogError::Gap { partition: 1, expected: 1, low: 2 }));
}

#[test]
fn a_log_that_was_cut_is_refused() {
    let rig = Rig::embedded();
    publish(&rig.producer(), batch([(1, "0"), (1, "1")])).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(2);
    reader.consumer.commit(&[(1, 2)]).unwrap();
    drop(reader);
    rig.close();
    raw(rig.path()).execute("DELETE FROM batches", []).unwrap();
    assert!(matches!(rig.consumer("a").error(), LogError::Contract(_)));
}

/// 50,000 bytes that do not compress.
fn noise() -> Vec<u8> {
    std::iter::successors(Some(1_u64), |n| {
        Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|n| n.to_be_bytes()[0])
    .take(50_000)
    .collect()
}

#[test]
fn a_full_disk_refuses_and_recovers_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, options) = with_clock(directory.path());
    let log = EmbeddedLog::open(EmbeddedLogOptions {
        disk_bytes_max: 1024 * 1024,
        retention: Duration::from_secs(60),
        ..options
    })
    .unwrap();
    let producer = producer(&log);
    let mut reader = reader(&log, "a");
    reader.assigned();
    let noise = noise();
    let mut acked = 0;
    let refused = loop {
        match publish(&producer, batch([(0, &noise)])) {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 100, "the disk never filled");
    };
    assert!(matches!(refused, PublishError::Unconfirmed(_)), "{refused:?}");
    assert!(producer.unready().is_some());
    assert_eq!(reader.read(acked).len(), acked, "what was acknowledged is all there, and no more");
    let refused = reader.consumer.commit(&[(1, 0)]);
    assert!(matches!(refused, Ok(()) | Err(LogError::Transient { .. })), "{refused:?}");

    reader.consumer.commit(&[(0, u64::try_from(acked).unwrap())]).unwrap();
    for partition in 1..PARTITIONS {
        reader.consumer.commit(&[(partition, 0)]).unwrap();
    }
    clock.set(start() + TimeDelta::minutes(2));
    log.sweep().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while producer.unready().is_some() {
        assert!(Instant::now() < deadline, "the log finds out by itself that there is space");
        std::thread::yield_now();
    }
    publish(&producer, batch([(0, &noise)])).unwrap();
    assert_eq!(reader.read(1)[0].offset, u64::try_from(acked).unwrap());
}

/// Producers that try again at once must not keep the consumer from what makes room for them.
#[test]
fn offsets_are_committed_to_a_full_log_that_publishes_press_on() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, options) = with_clock(directory.path());
    let retention = Duration::from_secs(60);
    let log = EmbeddedLog::open(EmbeddedLogOptions {
        disk_bytes_max: 4 * 1024 * 1024,
        retention,
        ..options
    })
    .unwrap();
    let mut reader = reader(&log, "a");
    reader.assigned();
    let producer = producer(&log);
    let (noise, done) = (noise(), AtomicBool::new(false));
    let mut end = 0;
    while publish(&producer, batch([(0, &noise)])).is_ok() {
        end += 1;
        assert!(end < 100, "the disk never filled");
    }
    reader.read(usize::try_from(end).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let waiting: Vec<_> =
                        (0..8).map(|_| producer.publish(batch([(0, &noise)]))).collect();
                    for outcome in waiting {
                        crate::support::block_on(outcome).ok();
                    }
                }
            });
        }
        // Also when an assertion fails, or the scope would wait for the publishers for ever.
        let _stop = StopOnDrop(&done);
        for _ in 0..20 {
            reader.consumer.commit(&[(0, end)]).unwrap();
        }
        assert!(producer.unready().is_some(), "a committed offset makes no room");
        clock.set(start() + TimeDelta::minutes(2));
        log.sweep().unwrap();
        assert_eq!(reader.consumer.watermarks(0).unwrap().low, end);
        assert_eq!(reader.read_at_least(1)[0].offset, end);
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn retention_deletes_what_is_old_and_committed_by_every_group() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, options) = with_clock(directory.path());
    let log = EmbeddedLog::open(EmbeddedLogOptions {
        retention: Duration::from_secs(3600),
        ..options.clone()
    })
    .unwrap();
    let producer = producer(&log);
    publish(&producer, batch([(0, "0"), (0, "1")])).unwrap();
    clock.set(start() + TimeDelta::minutes(30));
    publish(&producer, batch([(0, "2")])).unwrap();
    clock.set(start() + TimeDelta::minutes(61));
    log.sweep().unwrap();
    let (mut a, b) = (reader(&log, "a"), log.consumer("b").unwrap());
    a.assigned();
    let low = |a: &mut Reader| a.consumer.watermarks(0).unwrap().low;
    assert_eq!(low(&mut a), 0, "nobody has read it");
    a.read(3);
    a.consumer.commit(&[(0, 3)]).unwrap();
    log.sweep().unwrap();
    assert_eq!(low(&mut a), 0, "the group b has not");
    assert!(matches!(log.forget_group("b"), Err(LogError::Contract(_))), "it still reads");
    drop(b);
    log.forget_group("b").unwrap();
    log.sweep().unwrap();
    assert_eq!(low(&mut a), 2, "the second batch is young");
    assert_eq!(a.consumer.offset_for_time(0, start()).unwrap(), 2);
    clock.set(start() + TimeDelta::hours(3));
    log.sweep().unwrap();
    assert_eq!(a.consumer.watermarks(0).unwrap(), Watermarks { low: 3, high: 3 });
    drop((a, producer, log));

    let log = EmbeddedLog::open(options).unwrap();
    let mut again = reader(&log, "a");
    assert_eq!(again.assigned()[0].start, 3, "an emptied partition keeps its end");
    publish(&self::producer(&log), batch([(0, "3")])).unwrap();
    assert_eq!(again.read(1)[0].offset, 3);
    let mut new = reader(&log, "new");
    assert_eq!(new.assigned()[0].start, 3, "a new group starts at what is left");
}

#[test]
fn committed_records_go_early_when_the_log_is_large() {
    let directory = tempfile::tempdir().unwrap();
    let (_clock, options) = with_clock(directory.path());
    let log = EmbeddedLog::open(EmbeddedLogOptions { retained_bytes_max: 1, ..options }).unwrap();
    publish(&producer(&log), batch([(0, "0"), (1, "1")])).unwrap();
    let mut reader = reader(&log, "a");
    reader.assigned();
    reader.read(2);
    reader.consumer.commit(&[(0, 1)]).unwrap();
    log.sweep().unwrap();
    assert_eq!(reader.consumer.watermarks(0).unwrap().low, 1);
    assert_eq!(reader.consumer.watermarks(1).unwrap().low, 0, "it was not committed");
}

#[test]
fn append_times_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, options) = with_clock(directory.path());
    let log = EmbeddedLog::open(options).unwrap();
    let producer = producer(&log);
    for minutes in [0, 10, 5, 20] {
        clock.set(start() + TimeDelta::minutes(minutes));
        publish(&producer, batch([(0, minutes.to_string())])).unwrap();
    }
    let mut consumer = log.consumer("a").unwrap();
    let mut offset =
        |minutes| consumer.offset_for_time(0, start() + TimeDelta::minutes(minutes)).unwrap();
    assert_eq!([0, 1, 10, 11, 20, 21].map(&mut offset), [0, 1, 1, 3, 3, 4]);
}

/// A process that publishes until it is killed; runs only as the child of the test below.
#[test]
#[expect(clippy::disallowed_methods, reason = "the directory comes from the test that starts us")]
fn publishes_until_killed() {
    let Ok(argument) = std::env::var("TALLYMARK_TEST_LOG") else { return };
    let (round, path) = argument.split_once(':').unwrap();
    let round: u32 = round.parse().unwrap();
    let log = EmbeddedLog::open(embedded_options(Path::new(path))).unwrap();
    let producer = producer(&log);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let producer = &producer;
            scope.spawn(move || {
                for n in 0..20_000 {
                    let first = round * 1_000_000 + (thread * 20_000 + n) * 10;
                    publish(producer, numbers(first..first + 10)).unwrap();
                    println!("acked {first}");
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let rig = Rig::embedded();
    let mut acked = Vec::new();
    for round in 0..5_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["embedded::publishes_until_killed", "--exact", "--nocapture"])
            .env("TALLYMARK_TEST_LOG", format!("{round}:{}", rig.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut in_round = 0;
        for line in lines {
            // The harness shares the output, and the last line may be cut.
            let line = line.unwrap();
            let Some((_, first)) = line.split_once("acked ") else { continue };
            let Ok(first) = first.parse::<u32>() else { continue };
            acked.push(first);
            in_round += 1;
            if in_round == 150 + round * 70 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(in_round >= 150 + round * 70, "the child died early");

        let mut reader = rig.consumer("a");
        reader.assigned();
        let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
        for read in reader.read_until_quiet() {
            assert_eq!(read.partition, partition_of(read.number()));
            *copies.entry(read.number()).or_default() += 1;
        }
        for first in &acked {
            for number in *first..first + 10 {
                assert_eq!(copies.get(&number), Some(&1), "{number} was acknowledged");
            }
        }
        let batches: BTreeMap<u32, u32> =
            copies.keys().fold(BTreeMap::new(), |mut batches, number| {
                *batches.entry(number / 10).or_default() += 1;
                batches
            });
        assert!(batches.values().all(|records| *records == 10), "a batch is stored whole or not");
        drop(reader);
        rig.close();
    }
}
