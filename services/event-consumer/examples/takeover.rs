//! How long a consumer takes to read the dedup index of the partitions it takes over, and the memory it takes.
//!
//! Fills a table with `--ids` events of 35 days, once, and rebuilds the index from it:
//! `cargo build --release --bins && cargo run --release -p event-consumer --example takeover`
//!
//! With `--kafka`, two consumers run on a broker, the one that is at work is killed, and what is
//! measured is the time until the other one has inserted.

use clap::Parser;
use event_consumer::dedup::PositionOrder;
use event_consumer::dedup::rebuild::{RebuildRequest, rebuild};
use event_log::kafka::{KafkaConfig, KafkaProducer, ensure_topic};
use event_log::{EventLogProducer as _, RecordBatch, wire};
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::kafka::{Kafka, KafkaOptions};
use local_engines::libchdb;
use local_engines::process::ManagedProcess;
use metering::UsageEvent;
use metering::identity::partition_of;
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::secret::Secret;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::sql::Reader;
use testkit::wait;
use tokio::runtime::Runtime;
use usage_store::{UsageStore, UsageStoreConfig};

const DAY: Duration = Duration::from_secs(86_400);
/// Rows of one INSERT of the table's filling.
const PIECE: u64 = 200_000;
const PASSWORD: &str = "takeover";

#[derive(Parser)]
struct Args {
    /// Events within the horizon
    #[arg(long, default_value_t = 50_000_000)]
    ids: u64,
    /// Partitions they are spread over, all of which are taken over at once
    #[arg(long, default_value_t = 12)]
    partitions: u16,
    /// Where the engine keeps the table; used again when it is filled already
    #[arg(long, default_value = "target/takeover")]
    data_dir: PathBuf,
    /// Rebuilds, one after the other; the first reads from a cold page cache if the caller dropped it
    #[arg(long, default_value_t = 2)]
    runs: u32,
    /// Kill a consumer on a real Kafka, too
    #[arg(long)]
    kafka: bool,
}

#[expect(clippy::print_stdout, reason = "what it measures is for its caller")]
fn main() {
    let args = Args::parse();
    service_kit::telemetry::init(service_kit::telemetry::LogFormat::Text, "warn");
    let engine = engine(&args.data_dir);
    let database = format!("ids_{}_in_{}", args.ids, args.partitions);
    let (user, password) = (engine.service_user(), Secret::new(PASSWORD));
    let config = UsageStoreConfig::new(engine.url(), &database, user, password);
    let store = UsageStore::connect(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(store.migrate()).expect("the schema applies");
    let address = engine.address();
    let reader = Reader::new(format!("http://{user}:{PASSWORD}@{address}/?database={database}"));
    fill(&reader, &args);
    println!("ids {} in {} partitions", args.ids, args.partitions);
    for run in 1..=args.runs {
        let (before, start) = (cpu_seconds(engine.pid()), Instant::now());
        let own = cpu_seconds(std::process::id());
        let request = request(&args);
        let rebuilt = runtime.block_on(rebuild(&store, request, Arc::new(|| ())));
        let rebuilt = rebuilt.expect("the limit is far above");
        let ids: usize = rebuilt.values().map(|rebuilt| rebuilt.index.len()).sum();
        let bytes: usize = rebuilt.values().map(|rebuilt| rebuilt.index.allocated_bytes()).sum();
        println!(
            "run {run}: {:.1?} until the indexes of {ids} ids are complete, {}.{} bytes per id; CPU {} s here, {} s in the engine; peak RSS {} here, {} in the engine",
            start.elapsed(),
            bytes / ids,
            bytes * 10 / ids % 10,
            cpu_seconds(std::process::id()) - own,
            cpu_seconds(engine.pid()) - before,
            peak(std::process::id()),
            peak(engine.pid()),
        );
    }
    if args.kafka {
        kill_and_wait(&runtime, &config, &reader, &args);
    }
}

/// Starts two consumers, the second of which gets half of the partitions, or none of a single one.
#[expect(clippy::print_stdout, reason = "what it measures is for its caller")]
fn kill_and_wait(runtime: &Runtime, store: &UsageStoreConfig, reader: &Reader, args: &Args) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let kafka = Kafka::start(KafkaOptions::new(directory.path().join("kafka"))).expect("a broker");
    let topic = KafkaConfig {
        partitions: args.partitions,
        replication_factor: 1,
        allow_single_replica: true,
        ..KafkaConfig::new(kafka.bootstrap())
    };
    runtime.block_on(ensure_topic(&topic)).expect("a topic");
    let producer = KafkaProducer::connect(&topic).expect("a producer");
    let mut numbers = 0..;
    let mut publish = |runtime: &Runtime| {
        let number: u64 = numbers.next().expect("there is no end");
        runtime.block_on(producer.publish(one_each(args.partitions, number))).expect("published");
        u64::from(args.partitions) * (number + 1)
    };
    let old = reader.number("SELECT sum(records) FROM ingest_batches FINAL").expect("a number");
    assert_eq!(old, 0, "the log of an earlier run is gone; remove the table");
    let mut first = spawn("first", &topic, store, directory.path());
    await_records(reader, publish(runtime));
    let second = spawn("second", &topic, store, directory.path());
    let log = directory.path().join("second.log");
    wait::until("the second is a member", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let at_work = args.partitions == 1 || text.contains("dedup index rebuilt");
        if at_work { Ok(()) } else { Err(text) }
    });
    // A member without partitions says nothing.
    std::thread::sleep(Duration::from_secs(10));
    await_records(reader, publish(runtime));
    first.kill().expect("it can be killed");
    let killed = Instant::now();
    await_records(reader, publish(runtime));
    println!("SIGKILL: every partition was inserted to again after {:.1?}", killed.elapsed());
    drop(second);
}

fn await_records(reader: &Reader, records: u64) {
    wait::until("every record is in the audit", || {
        let seen = reader.number("SELECT sum(records) FROM ingest_batches FINAL")?;
        if seen >= records { Ok(()) } else { Err(format!("{seen} of {records}")) }
    });
}

/// A new event for each partition.
fn one_each(partitions: u16, number: u64) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for wanted in 0..partitions {
        let candidates = (0_u32..).map(|salt| UsageEvent {
            transaction_id: Cow::Owned(format!("{number}-{wanted}-{salt}")),
            accepted_at: SystemClock.now(),
            ..UsageEvent::example()
        });
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for event in candidates {
            key.clear();
            event.write_identity_key(&mut key);
            if partition_of(&key, partitions) == wanted {
                wire::encode(&event, 1, &mut value);
                break;
            }
        }
        batch.push(
            |out| out.extend_from_slice(&key),
            |_| wanted,
            |out| out.extend_from_slice(&value),
        );
    }
    batch
}

fn spawn(name: &str, topic: &KafkaConfig, store: &UsageStoreConfig, logs: &Path) -> ManagedProcess {
    let mut command = Command::new(testkit::stack::binary("event-consumer"));
    command.args(["serve", "--kafka-allow-single-replica", "--kafka-replication-factor=1"]);
    command.args(["--admin-listen=127.0.0.1:0", "--dedup-memory=4294967296"]);
    command.arg(format!("--kafka-brokers={}", topic.brokers));
    command.arg(format!("--kafka-partitions={}", topic.partitions));
    command.arg(format!("--clickhouse-url={}", store.url));
    command.arg(format!("--clickhouse-database={}", store.database));
    command.env("CLICKHOUSE_PASSWORD", PASSWORD);
    let log = logs.join(format!("{name}.log"));
    ManagedProcess::spawn(command, name, &log).expect("the consumer starts")
}

fn request(args: &Args) -> RebuildRequest {
    RebuildRequest {
        topic: "usage.events".to_owned(),
        order: PositionOrder::new(1),
        partitions: (0..args.partitions).collect(),
        at: SystemClock.now(),
        at_latest: SystemClock.now(),
        reach: 42 * DAY,
        bytes_max: 4 * 1024 * 1024 * 1024,
    }
}

fn engine(data_dir: &Path) -> EmbeddedClickHouse {
    EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
        binary: Some(testkit::stack::binary("embedded-clickhouse")),
        library: libchdb::ensure(false).expect("the engine's library"),
        data_dir: data_dir.to_owned(),
        listen: None,
        service_password: PASSWORD.to_owned(),
        reader_password: PASSWORD.to_owned(),
        reader_database: "*".to_owned(),
        max_memory: None,
        log_file: data_dir.with_extension("log"),
        restart: false,
    })
    .expect("the engine starts")
}

/// Rows as the consumer writes them: in the order of the log, which the table then sorts by customer.
fn fill(reader: &Reader, args: &Args) {
    let Args { ids, partitions, .. } = args;
    let stored = reader.number("SELECT count() FROM usage_events").expect("a count");
    for first in (stored..*ids).step_by(usize::try_from(PIECE).expect("it fits")) {
        let rows = PIECE.min(ids - first);
        let sql = format!(
            "INSERT INTO usage_events (organization_id, transaction_id, external_customer_id, code, timestamp, value, properties, \
             accepted_at, identity_hash, payload_fingerprint, topic_epoch, kafka_partition, kafka_offset) \
             SELECT concat('org_', toString(h % 20)), concat('01890a5d-ac96-774b-bcce-', lower(hex(number))), \
             concat('customer-', toString(h % 10000)), ['tokens', 'requests', 'bytes', 'seconds'][h % 4 + 1], at, 1250, \
             '{{\"model\":\"large-4\",\"region\":\"eu-west-1\",\"tokens\":1250,\"cached\":false}}', at, sipHash128(number), \
             cityHash64(number), 1, h % {partitions}, intDiv(number, {partitions}) \
             FROM (SELECT number, cityHash64(number, 7) AS h, \
             now64(3, 'UTC') - toIntervalSecond(intDiv(({ids} - number) * 3024000, {ids})) AS at FROM numbers({first}, {rows}))"
        );
        reader.query(&sql).expect("a piece is stored");
    }
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
    let after_name = stat.rsplit_once(") ").expect("a name in parentheses").1;
    let ticks = |field: usize| -> u64 {
        after_name.split(' ').nth(field).and_then(|ticks| ticks.parse().ok()).expect("ticks")
    };
    (ticks(11) + ticks(12)) / 100
}

fn peak(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.expect("a peak").trim().to_owned()
}
