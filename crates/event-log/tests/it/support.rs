//! Logs to test on, and short ways to write to them and read from them.

use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions};
use event_log::kafka::{KafkaConfig, KafkaConsumer, KafkaProducer, ensure_topic};
use event_log::{
    Assignment, EventLogConsumer, EventLogProducer, LogError, Offset, PartitionId, Polled,
    PublishError, RecordBatch,
};
use local_engines::kafka::{Kafka, KafkaOptions};
use service_kit::clock::SystemClock;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One test body for each transport.
macro_rules! on_both_transports {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $test() { super::$test(&crate::support::Rig::embedded()); })*
        }
        mod kafka {
            $(#[test] fn $test() {
                if let Some(rig) = crate::support::Rig::kafka() { super::$test(&rig); }
            })*
        }
    };
}
pub(crate) use on_both_transports;

pub(crate) const PARTITIONS: u16 = 3;
/// How long a condition may take to come true before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a test watches that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// One log on one of the transports.
pub(crate) enum Rig {
    Embedded { directory: TempDir, log: Mutex<Option<EmbeddedLog>> },
    Kafka { config: KafkaConfig },
}

impl Rig {
    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::Embedded { directory, log: Mutex::new(None) }
    }

    /// A new topic on the broker that the tests share; `None` when Kafka is absent here.
    pub(crate) fn kafka() -> Option<Self> {
        let config = kafka_config(shared_kafka()?);
        block_on(ensure_topic(&config)).unwrap();
        Some(Self::Kafka { config })
    }

    /// The open log; opened again after [`Self::close`].
    pub(crate) fn log(&self) -> EmbeddedLog {
        let Self::Embedded { directory, log } = self else { panic!("the log is on Kafka") };
        let open = || EmbeddedLog::open(embedded_options(directory.path())).unwrap();
        log.lock().unwrap().get_or_insert_with(open).clone()
    }

    pub(crate) fn path(&self) -> &Path {
        let Self::Embedded { directory, .. } = self else { panic!("the log is on Kafka") };
        directory.path()
    }

    /// Closes an embedded log, if nothing else uses it.
    pub(crate) fn close(&self) {
        if let Self::Embedded { log, .. } = self {
            log.lock().unwrap().take();
        }
    }

    pub(crate) fn producer(&self) -> Arc<dyn EventLogProducer> {
        match self {
            Self::Embedded { .. } => Arc::new(self.log().producer()),
            Self::Kafka { config } => Arc::new(KafkaProducer::connect(config).unwrap()),
        }
    }

    pub(crate) fn consumer(&self, group: &str) -> Reader {
        let consumer: Box<dyn EventLogConsumer> = match self {
            Self::Embedded { .. } => Box::new(self.log().consumer(group).unwrap()),
            Self::Kafka { config } => {
                let group = format!("{}-{group}", config.topic);
                let config = KafkaConfig { group, ..config.clone() };
                Box::new(KafkaConsumer::connect(&config).unwrap())
            }
        };
        Reader { consumer }
    }
}

pub(crate) fn embedded_options(path: &Path) -> EmbeddedLogOptions {
    EmbeddedLogOptions::new(path, PARTITIONS, Arc::new(SystemClock))
}

/// The address of the broker that all tests of this process share. It dies with the process.
pub(crate) fn shared_kafka() -> Option<&'static str> {
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

/// A topic of its own, with short sessions.
pub(crate) fn kafka_config(brokers: &str) -> KafkaConfig {
    static TOPICS: AtomicU32 = AtomicU32::new(0);
    let topic = format!("usage.events.{}", TOPICS.fetch_add(1, Ordering::Relaxed));
    KafkaConfig {
        group: format!("{topic}-group"),
        topic,
        partitions: PARTITIONS,
        replication_factor: 1,
        allow_single_replica: true,
        session_timeout: Duration::from_secs(6),
        ..KafkaConfig::new(brokers)
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A batch of values, each in the partition given with it and under itself as the key.
pub(crate) fn batch<V: AsRef<[u8]>>(
    records: impl IntoIterator<Item = (PartitionId, V)>,
) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for (partition, value) in records {
        let value = value.as_ref();
        batch.push(
            |out| out.extend_from_slice(&value[..value.len().min(64)]),
            |_| partition,
            |out| out.extend_from_slice(value),
        );
    }
    batch
}

/// A batch of `from..to` as text, spread over all partitions.
pub(crate) fn numbers(range: std::ops::Range<u32>) -> RecordBatch {
    batch(range.map(|n| (partition_of(n), n.to_string())))
}

pub(crate) fn partition_of(number: u32) -> PartitionId {
    u16::try_from(number % u32::from(PARTITIONS)).unwrap()
}

pub(crate) fn publish(
    producer: &Arc<dyn EventLogProducer>,
    batch: RecordBatch,
) -> Result<(), PublishError> {
    block_on(producer.publish(batch))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Read {
    pub(crate) fn number(&self) -> u32 {
        std::str::from_utf8(&self.value).unwrap().parse().unwrap()
    }
}

/// The numbers read, sorted: what was delivered, whatever the order between partitions.
pub(crate) fn sorted_numbers(read: &[Read]) -> Vec<u32> {
    let mut numbers: Vec<_> = read.iter().map(Read::number).collect();
    numbers.sort_unstable();
    numbers
}

pub(crate) struct Reader {
    pub(crate) consumer: Box<dyn EventLogConsumer>,
}

impl Reader {
    /// Polls until the partitions are assigned.
    pub(crate) fn assigned(&mut self) -> Vec<Assignment> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.consumer.poll(Duration::from_millis(100)).unwrap() {
                Polled::Assigned(mut assignments) => {
                    assignments.sort_by_key(|assignment| assignment.partition);
                    return assignments;
                }
                Polled::Idle => assert!(Instant::now() < deadline, "nothing was assigned"),
                other => panic!("{other:?} before an assignment"),
            }
        }
    }

    /// Polls once and returns the records, however many.
    pub(crate) fn poll(&mut self, wait: Duration) -> Result<Vec<Read>, LogError> {
        let Polled::Records(fetched) = self.consumer.poll(wait)? else { return Ok(Vec::new()) };
        let mut read = Vec::new();
        for records in &fetched {
            read.extend(records.iter().map(|record| Read {
                partition: records.partition,
                offset: record.offset,
                key: record.key.to_vec(),
                value: record.value.to_vec(),
            }));
        }
        Ok(read)
    }

    /// Polls until `count` records have come, and then shortly for more that must not come.
    pub(crate) fn read(&mut self, count: usize) -> Vec<Read> {
        let mut read = self.read_at_least(count);
        read.extend(self.read_until_quiet());
        assert_eq!(read.len(), count, "more records than were published");
        read
    }

    pub(crate) fn read_at_least(&mut self, count: usize) -> Vec<Read> {
        let deadline = Instant::now() + PATIENCE;
        let mut read = Vec::new();
        while read.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} records came", read.len());
            read.extend(self.poll(Duration::from_millis(100)).unwrap());
        }
        read
    }

    pub(crate) fn read_until_quiet(&mut self) -> Vec<Read> {
        let deadline = Instant::now() + QUIET;
        let mut read = Vec::new();
        while Instant::now() < deadline {
            read.extend(self.poll(Duration::from_millis(50)).unwrap());
        }
        read
    }

    /// Polls until an error comes.
    pub(crate) fn error(&mut self) -> LogError {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no error came");
            if let Err(error) = self.poll(Duration::from_millis(100)) {
                return error;
            }
        }
    }
}
