//! A log, a database and a consumer between them.

use event_consumer::{ConsumerConfig, ConsumerError, ConsumerHealth, EventConsumer};
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions};
use event_log::kafka::{KafkaConfig, KafkaConsumer, KafkaProducer, ensure_topic};
use event_log::{EventLogConsumer, EventLogProducer, PartitionId, RecordBatch, wire};
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::process::ManagedProcess;
use metering::UsageEvent;
use metering::identity::partition_of;
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::secret::Secret;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use testkit::sql::Reader;
use testkit::stack::binary;
use testkit::wait;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usage_store::{UsageStore, UsageStoreConfig};

pub(crate) const PARTITIONS: u16 = 3;
const GROUP: &str = "event-consumer";

/// The engine that most tests share.
pub(crate) fn shared_engine() -> &'static EmbeddedClickHouse {
    static ENGINE: OnceLock<EmbeddedClickHouse> = OnceLock::new();
    ENGINE.get_or_init(own_engine)
}

/// An engine that a test may kill.
pub(crate) fn own_engine() -> EmbeddedClickHouse {
    EmbeddedClickHouse::start_for_tests(&binary("embedded-clickhouse"))
        .expect("the embedded engine starts")
}

/// What the events go through.
enum Log {
    Embedded(EmbeddedLog),
    Kafka(KafkaConfig),
}

/// What a test runs on. Its consumer comes and goes.
pub(crate) struct Bench {
    runtime: Runtime,
    log: Log,
    producer: Box<dyn EventLogProducer>,
    pub(crate) store: UsageStoreConfig,
    pub(crate) config: ConsumerConfig,
    pub(crate) reader: Reader,
    /// Records that were published.
    published: u64,
    _directory: TempDir,
}

/// A consumer that runs.
pub(crate) struct Running {
    pub(crate) health: ConsumerHealth,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), ConsumerError>>,
}

/// A copy of an event, as the log holds it.
pub(crate) fn event(id: impl ToString, customer: &'static str) -> UsageEvent<'static> {
    let now = SystemClock.now();
    UsageEvent {
        transaction_id: Cow::Owned(id.to_string()),
        external_customer_id: Cow::Borrowed(customer),
        timestamp: UsageEvent::example().timestamp,
        accepted_at: chrono::DateTime::from_timestamp_millis(now.timestamp_millis())
            .expect("a time of today"),
        ..UsageEvent::example()
    }
}

pub(crate) fn owner(event: &UsageEvent<'_>) -> PartitionId {
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    partition_of(&key, PARTITIONS)
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

impl Bench {
    /// An empty log, and an empty database of `engine`, which is reached at `address`.
    pub(crate) fn behind(engine: &EmbeddedClickHouse, address: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let log =
            EmbeddedLog::open(EmbeddedLogOptions::new(path, PARTITIONS, Arc::new(SystemClock)));
        let log = log.expect("an empty log");
        let producer = Box::new(log.producer());
        Self::with_log(engine, address, runtime(), (Log::Embedded(log), producer), directory)
    }

    /// A topic and a group of this name on the brokers, and an empty database of the shared engine.
    pub(crate) fn on_kafka(brokers: &str, name: &str) -> Self {
        let runtime = runtime();
        let config = KafkaConfig {
            topic: name.to_owned(),
            group: name.to_owned(),
            partitions: PARTITIONS,
            replication_factor: 1,
            allow_single_replica: true,
            ..KafkaConfig::new(brokers)
        };
        runtime.block_on(ensure_topic(&config)).expect("a topic");
        let producer = Box::new(KafkaProducer::connect(&config).expect("a producer"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = shared_engine();
        let log: (_, Box<dyn EventLogProducer>) = (Log::Kafka(config), producer);
        let mut bench = Self::with_log(engine, engine.address(), runtime, log, directory);
        bench.config.source.topic = name.to_owned();
        bench
    }

    fn with_log(
        engine: &EmbeddedClickHouse,
        address: SocketAddr,
        runtime: Runtime,
        (log, producer): (Log, Box<dyn EventLogProducer>),
        directory: TempDir,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database =
            format!("consumer_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (user, password) = (engine.service_user(), engine.service_password());
        let config =
            |url: String| UsageStoreConfig::new(url, &database, user, Secret::new(password));
        runtime
            .block_on(UsageStore::connect(&config(engine.url())).migrate())
            .expect("the schema applies");
        let mut store = config(format!("http://{address}"));
        store.insert_timeout = Duration::from_secs(2);
        let mut config = ConsumerConfig::new(PARTITIONS);
        config.batch.age = Duration::from_millis(200);
        let reader = Reader::new(format!(
            "http://{user}:{password}@{}/?database={database}",
            engine.address()
        ));
        Self { runtime, log, producer, store, config, reader, published: 0, _directory: directory }
    }

    pub(crate) fn new() -> Self {
        Self::behind(shared_engine(), shared_engine().address())
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
        self.runtime.block_on(self.producer.publish(batch)).expect("published");
        self.published += u64::try_from(records.len()).expect("a count");
    }

    pub(crate) fn publish(&mut self, events: &[UsageEvent<'_>]) {
        let records: Vec<_> = events
            .iter()
            .map(|event| {
                let (mut key, mut value) = (Vec::new(), Vec::new());
                event.write_identity_key(&mut key);
                wire::encode(event, 1, &mut value);
                (owner(event), key, value)
            })
            .collect();
        self.publish_raw(&records);
    }

    pub(crate) fn consumer(&self) -> EventConsumer {
        let log: Box<dyn EventLogConsumer> = match &self.log {
            Log::Embedded(log) => {
                Box::new(log.consumer(GROUP).expect("the group has no other member"))
            }
            Log::Kafka(config) => Box::new(KafkaConsumer::connect(config).expect("a member")),
        };
        let (store, clock) = (UsageStore::connect(&self.store), Arc::new(SystemClock));
        EventConsumer { log, store, config: self.config.clone(), clock }
    }

    pub(crate) fn start(&self) -> Running {
        let shutdown = CancellationToken::new();
        let _in_runtime = self.runtime.enter();
        let (health, running) =
            self.consumer().start(shutdown.clone()).expect("the configuration is valid");
        Running { health, shutdown, ended: self.runtime.spawn(running) }
    }

    /// A consumer that is a process of its own, on Kafka, and can be killed. `directory` gets its log.
    pub(crate) fn spawn(
        &self,
        name: &str,
        instance: Option<&str>,
        directory: &Path,
    ) -> ManagedProcess {
        let Log::Kafka(kafka) = &self.log else { panic!("the embedded log has one process") };
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-consumer"));
        command.args(["serve", "--kafka-allow-single-replica", "--kafka-replication-factor=1"]);
        command.args(["--admin-listen=127.0.0.1:0", "--batch-age=200ms"]);
        command.arg(format!("--kafka-brokers={}", kafka.brokers));
        command.arg(format!("--kafka-topic={}", kafka.topic));
        command.arg(format!("--kafka-group={}", kafka.group));
        command.arg(format!("--kafka-partitions={}", kafka.partitions));
        command.arg(format!("--clickhouse-url={}", self.store.url));
        command.arg(format!("--clickhouse-database={}", self.store.database));
        command.arg(format!("--clickhouse-user={}", self.store.user));
        command.env("CLICKHOUSE_PASSWORD", self.store.password.expose());
        command.args(instance.map(|id| format!("--kafka-group-instance-id={id}")));
        ManagedProcess::spawn(command, name, &directory.join(format!("{name}.log")))
            .expect("the consumer starts")
    }

    /// Waits until the audit speaks of every record that was published.
    #[track_caller]
    pub(crate) fn await_consumed(&self) {
        wait::until("every record is in the audit", || {
            let seen = self.reader.number("SELECT sum(records) FROM ingest_batches FINAL")?;
            if seen >= self.published {
                Ok(())
            } else {
                Err(format!("{seen} of {}", self.published))
            }
        });
        self.assert_tiled();
    }

    /// The audit's ranges follow each other, and each record became one thing.
    #[track_caller]
    fn assert_tiled(&self) {
        let gaps = "SELECT count() FROM (SELECT first_offset, lagInFrame(last_offset + 1, 1, 0) OVER \
                    (PARTITION BY kafka_partition ORDER BY first_offset ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS expected \
                    FROM ingest_batches FINAL) WHERE first_offset != expected";
        assert_eq!(self.reader.number(gaps), Ok(0), "gaps or overlaps in the audit");
        assert_eq!(
            self.reader.number("SELECT sum(records) FROM ingest_batches FINAL"),
            Ok(self.published)
        );
    }

    /// The answer of a query, as lines of values separated by spaces.
    #[track_caller]
    pub(crate) fn lines(&self, sql: &str) -> Vec<String> {
        let text = self
            .reader
            .query(&format!("{sql} FORMAT TSV"))
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        text.lines().map(|line| line.replace('\t', " ")).collect()
    }

    /// `id customer` of every billable event.
    #[track_caller]
    pub(crate) fn billable(&self) -> Vec<String> {
        self.lines("SELECT transaction_id, external_customer_id FROM billable_events ORDER BY transaction_id, external_customer_id")
    }

    #[track_caller]
    pub(crate) fn number(&self, sql: &str) -> u64 {
        self.reader.number(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Asks the consumer to end, and waits until it has.
    pub(crate) fn stop(&self, running: Running) -> Result<(), ConsumerError> {
        running.shutdown.cancel();
        self.ended(running)
    }

    /// Waits until the consumer has ended by itself.
    pub(crate) fn ended(&self, running: Running) -> Result<(), ConsumerError> {
        self.runtime
            .block_on(async { tokio::time::timeout(wait::PATIENCE, running.ended).await })
            .expect("it ends in time")
            .expect("it does not panic")
    }
}
