//! What a proof and a replay cost: `cargo run --release -p operator --example proof_cost -- [MILLIONS OF EVENTS]
//! [MILLIONS OF ROWS FROM BEFORE] [MEMORY IN MB]`.
//!
//! One in ten records is a repeat, in 4 partitions of an embedded log, beside the embedded engine. The rows
//! from before are of the 30 days before the period.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use chrono::{DateTime, TimeDelta, Utc};
use event_consumer::decode::Source;
use event_consumer::{ConsumerConfig, EventConsumer};
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions, EmbeddedReader};
use event_log::{EventLogProducer as _, EventLogReader as _, RecordBatch, wire};
use local_engines::clickhouse::EmbeddedClickHouse;
use metering::identity::{identity_hash, partition_of};
use metering::{Quantity, UsageEvent};
use operator::engines::Engines;
use operator::reconcile::{Request, reconcile};
use operator::replay::range::ReplayStart;
use operator::replay::{self, replay};
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::secret::Secret;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use usage_store::{EventRows, InsertToken, Position, UsageStore, UsageStoreConfig};

const PARTITIONS: u16 = 4;
const BATCH: u64 = 1000;
const HISTORY_BATCH: u64 = 100_000;
const HORIZON: Duration = Duration::from_secs(35 * 86_400);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let argument = |number, default| -> anyhow::Result<u64> {
        Ok(std::env::args().nth(number).map_or(Ok(default), |text| text.parse())?)
    };
    let (millions, millions_before) = (argument(1, 1)?, argument(2, 0)?);
    let memory = argument(3, 8000)? * 1_000_000;
    let directory = tempfile::tempdir()?;
    let here = std::env::current_exe()?;
    let program = here.ancestors().nth(2).unwrap_or(Path::new(".")).join("embedded-clickhouse");
    let engine = EmbeddedClickHouse::start_for_tests(&program)?;
    let password = Secret::new(engine.service_password());
    let config = UsageStoreConfig::new(engine.url(), "cost", engine.service_user(), password);
    let store = UsageStore::connect(&config);
    store.migrate().await?;
    let path = directory.path().join("log");
    let log = EmbeddedLog::open(EmbeddedLogOptions::new(&path, PARTITIONS, Arc::new(SystemClock)))?;
    let begun = SystemClock.now();
    remember(&store, millions_before * 1_000_000, begun).await?;
    fill(&log, millions * 1_000_000, begun).await?;
    consume(&log, &store, &path).await?;

    let reader = Box::new(EmbeddedReader::open(&path, "event-consumer")?);
    let source = Source { topic: "usage.events".to_owned(), epoch: 1, partition_count: PARTITIONS };
    let mut engines = Engines { reader, store, source };
    // From here on the peak is that of the commands, and not of the consumer before them.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = resident();
    let request = Request {
        period: begun - TimeDelta::minutes(1)..SystemClock.now() + TimeDelta::minutes(1),
        organization: None,
        settle: Duration::from_secs(300),
        horizon: HORIZON,
        memory,
        examples: 5,
    };
    let start = Instant::now();
    let report = reconcile(&mut engines, &request, SystemClock.now() + TimeDelta::hours(1)).await?;
    println!(
        "reconcile: passed {}, {} records, {} billed, {:?}; resident memory {before} kB before, {} kB at most",
        report.passed,
        report.total.accepted,
        report.total.billed,
        start.elapsed(),
        peak()
    );
    let request = replay::Request {
        from: ReplayStart::Earliest,
        to: None,
        dry_run: false,
        horizon: HORIZON,
        memory: 8 << 30,
    };
    let start = Instant::now();
    let replayed = replay(&mut engines, &request, SystemClock.now()).await?;
    let stored: u64 = replayed.iter().map(|partition| partition.tally.stored).sum();
    println!("replay: {stored} stored again, {:?}; {} kB at most", start.elapsed(), peak());
    Ok(())
}

/// Stores rows of an earlier life of the topic.
async fn remember(store: &UsageStore, rows: u64, begun: DateTime<Utc>) -> anyhow::Result<()> {
    for first in (0..rows).step_by(usize::try_from(HISTORY_BATCH)?) {
        let (mut encoded, mut key) = (EventRows::default(), Vec::new());
        for number in first..first + HISTORY_BATCH {
            let age = TimeDelta::days(1)
                + TimeDelta::days(30) / i32::try_from(rows)? * i32::try_from(rows - number)?;
            let event = event(number, &format!("old-{number:012}"), begun - age);
            key.clear();
            event.write_identity_key(&mut key);
            let partition = u16::try_from(number % u64::from(PARTITIONS))?;
            let offset = number / u64::from(PARTITIONS);
            let position = Position { epoch: 0, partition, offset };
            encoded.push(&event, position, identity_hash(&key), event.payload_fingerprint());
        }
        let encoded = encoded.finish();
        let token = InsertToken::new("before", &[], &encoded.bytes);
        store.insert_events(&encoded, &token).await?;
    }
    Ok(())
}

fn event(number: u64, id: &str, at: DateTime<Utc>) -> UsageEvent<'static> {
    UsageEvent {
        transaction_id: Cow::Owned(id.to_owned()),
        external_customer_id: Cow::Owned(format!("customer-{}", number % 1000)),
        value: Quantity::from_units(i128::from(number) << 40),
        timestamp: at,
        accepted_at: at,
        ..UsageEvent::example()
    }
}

async fn fill(log: &EmbeddedLog, events: u64, at: DateTime<Utc>) -> anyhow::Result<()> {
    let producer = log.producer();
    for first in (0..events).step_by(usize::try_from(BATCH)?) {
        let mut batch = RecordBatch::default();
        for number in first..first + BATCH {
            let id = number / 10 * 9 + number % 10;
            let event = UsageEvent {
                accepted_at: at + TimeDelta::milliseconds(i64::try_from(number / 1000)?),
                ..event(id, &format!("txn-{id:012}"), at)
            };
            batch.push(
                |key| event.write_identity_key(key),
                |key| partition_of(key, PARTITIONS),
                |value| wire::encode(&event, 1, value),
            );
        }
        producer.publish(batch).await?;
    }
    Ok(())
}

async fn consume(log: &EmbeddedLog, store: &UsageStore, path: &Path) -> anyhow::Result<()> {
    let consumer = EventConsumer {
        log: Box::new(log.consumer("event-consumer")?),
        store: store.clone(),
        config: ConsumerConfig::new(PARTITIONS),
        clock: Arc::new(SystemClock),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(consumer.run(shutdown.clone()));
    let mut reader = EmbeddedReader::open(path, "event-consumer")?;
    let mut all_read = false;
    while !all_read {
        tokio::time::sleep(Duration::from_millis(200)).await;
        all_read = true;
        for partition in 0..PARTITIONS {
            let high = reader.watermarks(partition)?.high;
            all_read &= reader.committed(partition)?.unwrap_or(0) >= high;
        }
    }
    shutdown.cancel();
    running.await??;
    Ok(())
}

fn resident() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
