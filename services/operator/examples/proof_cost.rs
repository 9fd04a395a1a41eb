//! What a proof and a replay cost: `cargo run --release -p operator --example proof_cost -- [MILLIONS OF EVENTS]`.
//!
//! One in ten records is a repeat, in 4 partitions of an embedded log, beside the embedded engine.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use chrono::{DateTime, TimeDelta, Utc};
use event_consumer::decode::Source;
use event_consumer::{ConsumerConfig, EventConsumer};
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions, EmbeddedReader};
use event_log::{EventLogProducer as _, EventLogReader as _, RecordBatch, wire};
use local_engines::clickhouse::EmbeddedClickHouse;
use metering::identity::partition_of;
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
use usage_store::{UsageStore, UsageStoreConfig};

const PARTITIONS: u16 = 4;
const BATCH: u64 = 1000;
const HORIZON: Duration = Duration::from_secs(35 * 86_400);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let millions: u64 = std::env::args().nth(1).map_or(Ok(1), |text| text.parse())?;
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
        memory: 8 << 30,
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

async fn fill(log: &EmbeddedLog, events: u64, at: DateTime<Utc>) -> anyhow::Result<()> {
    let producer = log.producer();
    for first in (0..events).step_by(usize::try_from(BATCH)?) {
        let mut batch = RecordBatch::default();
        for number in first..first + BATCH {
            let id = number / 10 * 9 + number % 10;
            let event = UsageEvent {
                transaction_id: Cow::Owned(format!("txn-{id:012}")),
                external_customer_id: Cow::Owned(format!("customer-{}", id % 1000)),
                value: Quantity::from_units(i128::from(id) << 40),
                timestamp: at,
                accepted_at: at + TimeDelta::milliseconds(i64::try_from(number / 1000)?),
                ..UsageEvent::example()
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
