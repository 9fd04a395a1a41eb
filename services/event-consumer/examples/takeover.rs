//! How long a consumer takes to read the dedup index of the partitions it takes over, and the memory it takes.
//!
//! Fills a table with `--ids` events of 35 days, once, and rebuilds the index from it:
//! `cargo build --release -p embedded-clickhouse && cargo run --release -p event-consumer --example takeover`

use clap::Parser;
use event_consumer::dedup::PositionOrder;
use event_consumer::dedup::rebuild::{RebuildRequest, rebuild};
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::libchdb;
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::secret::Secret;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::sql::Reader;
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
}

fn request(args: &Args) -> RebuildRequest {
    RebuildRequest {
        topic: "usage.events".to_owned(),
        order: PositionOrder::new(1),
        partitions: (0..args.partitions).collect(),
        at: SystemClock.now(),
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
