//! A log, a database and a consumer between them, and the operator's engines beside them.

use chrono::{DateTime, TimeDelta, Utc};
use event_consumer::decode::Source;
use event_consumer::{ConsumerConfig, EventConsumer};
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions, EmbeddedReader};
use event_log::kafka::{KafkaConfig, KafkaConsumer, KafkaProducer, KafkaReader, ensure_topic};
use event_log::{
    EventLogConsumer, EventLogProducer, EventLogReader, PartitionId, RecordBatch, wire,
};
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::kafka::{Kafka, KafkaOptions};
use metering::identity::partition_of;
use metering::{Quantity, UsageEvent};
use operator::engines::Engines;
use operator::reconcile::report::Report;
use operator::reconcile::{NotChecked, Request, reconcile};
use operator::replay::range::ReplayStart;
use operator::replay::{self, ReplayError, Replayed};
use service_kit::clock::{Clock as _, FixedClock, SystemClock};
use service_kit::secret::Secret;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use testkit::sql::Reader;
use testkit::stack::binary;
use testkit::wait;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use usage_store::{UsageStore, UsageStoreConfig};

pub(crate) const PARTITIONS: u16 = 3;
const GROUP: &str = "event-consumer";
const BILL: &str = "SELECT transaction_id, external_customer_id, code, timestamp, value, properties, accepted_at FROM billable_events ORDER BY ALL";
/// How far acceptance and append of the tests' events may be apart.
const SETTLE: Duration = Duration::from_secs(300);

pub(crate) fn engine() -> &'static EmbeddedClickHouse {
    static ENGINE: OnceLock<EmbeddedClickHouse> = OnceLock::new();
    ENGINE.get_or_init(|| {
        EmbeddedClickHouse::start_for_tests(&binary("embedded-clickhouse"))
            .expect("the embedded engine starts")
    })
}

/// The broker that all tests share; `None` when Kafka is absent here.
pub(crate) fn kafka() -> Option<&'static str> {
    static KAFKA: OnceLock<Option<(Kafka, String, TempDir)>> = OnceLock::new();
    let kafka = KAFKA.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let started = Kafka::start(KafkaOptions::new(directory.path()));
        let kafka = local_engines::require_or_skip("Apache Kafka", started)?;
        let bootstrap = kafka.bootstrap();
        Some((kafka, bootstrap, directory))
    });
    kafka.as_ref().map(|(_, bootstrap, _)| bootstrap.as_str())
}

enum Log {
    Embedded { log: EmbeddedLog, clock: FixedClock },
    Kafka(KafkaConfig),
}

/// What a test runs on.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    log: Log,
    pub(crate) producer: Arc<dyn EventLogProducer>,
    pub(crate) store: UsageStoreConfig,
    pub(crate) source: Source,
    reader: Reader,
    url: String,
    published: u64,
    directory: TempDir,
}

/// A time of now, in milliseconds as events carry it.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(SystemClock.now().timestamp_millis()).unwrap()
}

/// A copy of an event that was accepted now.
pub(crate) fn event(id: impl ToString, value: i128) -> UsageEvent<'static> {
    UsageEvent {
        transaction_id: Cow::Owned(id.to_string()),
        value: Quantity::from_units(value * 1_000_000_000_000),
        accepted_at: now(),
        ..UsageEvent::example()
    }
}

pub(crate) fn owner(event: &UsageEvent<'_>) -> PartitionId {
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    partition_of(&key, PARTITIONS)
}

/// The record of an event.
pub(crate) fn record(event: &UsageEvent<'_>) -> (PartitionId, Vec<u8>, Vec<u8>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    event.write_identity_key(&mut key);
    wire::encode(event, 1, &mut value);
    (owner(event), key, value)
}

/// Runs `test` on the embedded log, and on Kafka where it is.
pub(crate) fn on_both_logs(test: impl Fn(Bench)) {
    test(Bench::embedded());
    if let Some(bench) = Bench::kafka() {
        test(bench);
    }
}

impl Bench {
    pub(crate) fn embedded() -> Self {
        Self::embedded_on(engine())
    }

    /// On an engine that no other test uses.
    pub(crate) fn embedded_on(engine: &EmbeddedClickHouse) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = FixedClock::new(SystemClock.now());
        let options = EmbeddedLogOptions::new(
            directory.path().join("log"),
            PARTITIONS,
            Arc::new(clock.clone()),
        );
        let log = EmbeddedLog::open(options).unwrap();
        let producer = Arc::new(log.producer());
        let log = Log::Embedded { log, clock };
        Self::with_log(engine, runtime(), log, producer, "usage.events", directory)
    }

    pub(crate) fn kafka() -> Option<Self> {
        static TOPICS: AtomicU32 = AtomicU32::new(0);
        let topic = format!("usage.events.{}", TOPICS.fetch_add(1, Ordering::Relaxed));
        let config = KafkaConfig {
            group: format!("{topic}-group"),
            topic: topic.clone(),
            partitions: PARTITIONS,
            replication_factor: 1,
            allow_single_replica: true,
            session_timeout: Duration::from_secs(6),
            ..KafkaConfig::new(kafka()?)
        };
        let runtime = runtime();
        runtime.block_on(ensure_topic(&config)).unwrap();
        let producer = Arc::new(KafkaProducer::connect(&config).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let log = Log::Kafka(config);
        Some(Self::with_log(engine(), runtime, log, producer, &topic, directory))
    }

    fn with_log(
        engine: &EmbeddedClickHouse,
        runtime: Runtime,
        log: Log,
        producer: Arc<dyn EventLogProducer>,
        topic: &str,
        directory: TempDir,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("operator_{}_{number}", std::process::id());
        let (user, password) = (engine.service_user(), engine.service_password());
        let store = UsageStoreConfig::new(engine.url(), &database, user, Secret::new(password));
        runtime.block_on(UsageStore::connect(&store).migrate()).unwrap();
        let url = format!("http://{user}:{password}@{}/?database={database}", engine.address());
        let source = Source { topic: topic.to_owned(), epoch: 1, partition_count: PARTITIONS };
        let reader = Reader::new(&url);
        Self { runtime, log, producer, store, source, reader, url, published: 0, directory }
    }

    /// Publishes raw records.
    pub(crate) fn publish_raw(&mut self, records: &[(PartitionId, Vec<u8>, Vec<u8>)]) {
        let mut batch = RecordBatch::default();
        for (partition, key, value) in records {
            batch.push(
                |out| out.extend_from_slice(key),
                |_| *partition,
                |out| out.extend_from_slice(value),
            );
        }
        self.runtime.block_on(self.producer.publish(batch)).unwrap();
        self.published += u64::try_from(records.len()).unwrap();
    }

    pub(crate) fn publish(&mut self, events: &[UsageEvent<'_>]) {
        let records: Vec<_> = events.iter().map(record).collect();
        self.publish_raw(&records);
    }

    /// Runs a consumer until it has stored every record that was published.
    pub(crate) fn consume(&mut self) {
        let log: Box<dyn EventLogConsumer> = match &self.log {
            Log::Embedded { log, .. } => Box::new(log.consumer(GROUP).unwrap()),
            Log::Kafka(config) => Box::new(KafkaConsumer::connect(config).unwrap()),
        };
        let mut config = ConsumerConfig::new(PARTITIONS);
        config.source = self.source.clone();
        config.batch.age = Duration::from_millis(200);
        let (store, clock) = (UsageStore::connect(&self.store), Arc::new(SystemClock));
        let consumer = EventConsumer { log, store, config, clock };
        let shutdown = CancellationToken::new();
        let running = self.runtime.spawn(consumer.run(shutdown.clone()));
        wait::until("every record is in the audit", || {
            let seen = self.reader.number("SELECT sum(records) FROM ingest_batches FINAL")?;
            if seen >= self.published {
                Ok(())
            } else {
                Err(format!("{seen} of {}", self.published))
            }
        });
        shutdown.cancel();
        self.runtime.block_on(running).unwrap().unwrap();
    }

    /// Runs a consumer until it has stored what was published here and `retried` records more.
    pub(crate) fn consume_retried(&mut self, retried: u64) {
        self.published += retried;
        self.consume();
    }

    /// What the operator's commands work on.
    pub(crate) fn engines(&self) -> Engines {
        let reader: Box<dyn EventLogReader> = match &self.log {
            Log::Embedded { .. } => {
                Box::new(EmbeddedReader::open(&self.directory.path().join("log"), GROUP).unwrap())
            }
            Log::Kafka(config) => Box::new(KafkaReader::connect(config).unwrap()),
        };
        Engines { reader, store: UsageStore::connect(&self.store), source: self.source.clone() }
    }

    /// A proof of the last and the next half hour, as if it were an hour later.
    pub(crate) fn request() -> Request {
        Request {
            period: now() - TimeDelta::minutes(30)..now() + TimeDelta::minutes(30),
            organization: None,
            settle: SETTLE,
            horizon: Duration::from_secs(35 * 86_400),
            memory: 64 * 1024 * 1024,
            examples: 3,
        }
    }

    pub(crate) fn try_reconcile(&self, request: &Request) -> Result<Report, NotChecked> {
        let later = now() + TimeDelta::hours(1);
        self.runtime.block_on(reconcile(&mut self.engines(), request, later))
    }

    #[track_caller]
    pub(crate) fn reconcile(&self) -> Report {
        self.try_reconcile(&Self::request()).unwrap()
    }

    pub(crate) fn try_replay(
        &self,
        request: &replay::Request,
    ) -> Result<Vec<Replayed>, ReplayError> {
        self.runtime.block_on(replay::replay(&mut self.engines(), request, now()))
    }

    /// Replays everything that the consumer has read; the sums over all partitions.
    #[track_caller]
    pub(crate) fn replay(&self) -> [u64; 4] {
        let replayed = self.try_replay(&replay_request(ReplayStart::Earliest)).unwrap();
        let mut sums = [0; 4];
        for Replayed { tally, not_restored, .. } in replayed {
            assert_eq!(not_restored, 0);
            let counts = [tally.stored, tally.duplicates, tally.conflicts, tally.dead_letters];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// Moves the clock of the embedded log, and lets its retention run.
    pub(crate) fn expire(&self, after: TimeDelta) {
        let Log::Embedded { log, clock } = &self.log else { panic!("the log is on Kafka") };
        clock.set(clock.now() + after);
        log.sweep().unwrap();
    }

    /// Does what somebody with the service's password could do.
    #[track_caller]
    pub(crate) fn execute(&self, sql: &str) {
        self.reader.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The answer of a query, as lines of values separated by spaces.
    #[track_caller]
    pub(crate) fn lines(&self, sql: &str) -> Vec<String> {
        let text = self
            .reader
            .query(&format!("{sql} FORMAT TSV"))
            .unwrap_or_else(|error| panic!("{sql}: {error} ({})", self.url));
        text.lines().map(|line| line.replace('\t', " ")).collect()
    }

    #[track_caller]
    pub(crate) fn number(&self, sql: &str) -> u64 {
        self.reader.number(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// What is billed, in a form that any change changes.
    #[track_caller]
    pub(crate) fn bill(&self) -> Vec<String> {
        self.lines(BILL)
    }

    /// Why nothing can be billed.
    #[track_caller]
    pub(crate) fn bill_error(&self) -> String {
        self.reader.query(&format!("{BILL} FORMAT TSV")).unwrap_err()
    }
}

pub(crate) fn replay_request(from: ReplayStart) -> replay::Request {
    let horizon = Duration::from_secs(35 * 86_400);
    replay::Request { from, to: None, dry_run: false, horizon, memory: 64 * 1024 * 1024 }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The names of the checks that failed.
pub(crate) fn failed(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}
