//! Every flag of the process, with its environment variable, default and bound.

use crate::batch::BatchLimits;
use crate::decode::Source;
use crate::error::ConsumerError;
use clap::{Args, Parser, Subcommand};
use event_log::kafka::{KafkaConfig, TopicArgs};
use service_kit::duration::parse_duration;
use service_kit::secret::Secret;
use service_kit::telemetry::LogFormat;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use usage_store::UsageStoreConfig;

const DAY: Duration = Duration::from_secs(86_400);

/// How the consumer behaves, whatever engines it runs on.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub source: Source,
    pub batch: BatchLimits,
    /// How long after its acceptance an event is remembered at least. Later copies are billed again.
    pub horizon: Duration,
    /// The oldest timestamp that the API accepts, which the horizon has to cover.
    pub max_timestamp_age: Duration,
    /// Memory of all dedup indexes, in bytes. Reaching it stops consumption.
    pub index_bytes_max: usize,
    /// Longest time that the last batch gets on shutdown.
    pub drain_timeout: Duration,
    /// How long records may wait without a commit before the liveness probe fails.
    pub stall_timeout: Duration,
    /// How long a full batch waits before the partitions are paused. Far below the 5 minutes after
    /// which a member that does not poll loses them.
    pub pause_after: Duration,
}

impl ConsumerConfig {
    /// The defaults, for `usage.events` of epoch 1 with `partition_count` partitions. The count has
    /// no default: with a wrong one, no event would be found in its partition.
    pub fn new(partition_count: u16) -> Self {
        Self {
            source: Source { topic: "usage.events".to_owned(), epoch: 1, partition_count },
            batch: BatchLimits::default(),
            horizon: 35 * DAY,
            max_timestamp_age: 35 * DAY,
            index_bytes_max: 1024 * 1024 * 1024,
            drain_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            pause_after: Duration::from_secs(5),
        }
    }

    /// Refuses what would lose or double usage, or could never work.
    pub fn validate(&self) -> Result<(), ConsumerError> {
        let BatchLimits { rows, bytes, months, age } = self.batch;
        let within = [
            (self.source.partition_count > 0, "a topic has at least one partition"),
            ((1..=BatchLimits::ROWS_MAX).contains(&rows), "a batch has 1 to 100,000 rows"),
            ((1..=BatchLimits::BYTES_MAX).contains(&bytes), "a batch has 1 byte to 94 MiB"),
            ((1..=50).contains(&months), "a batch has 1 to 50 months"),
            (age <= Duration::from_secs(60), "a batch waits for at most 60 s"),
            (self.horizon <= 3650 * DAY, "the dedup horizon is at most ten years"),
            (
                self.horizon >= self.max_timestamp_age,
                "the dedup horizon is shorter than the oldest timestamp the API accepts, so events could be billed twice; raise --dedup-horizon",
            ),
        ];
        match within.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConsumerError::Configuration((*rule).to_owned())),
            None => Ok(()),
        }
    }
}

/// Reads usage events from the log, drops duplicates and writes the rest to ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "event-consumer", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Consume (the default)
    Serve(Box<ServeArgs>),
    /// Bring the ClickHouse database to the schema this version needs
    Migrate(MigrateArgs),
}

impl Cli {
    /// Reads the process's arguments; without a command, they are those of `serve`.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let first = arguments.get(1).and_then(|argument| argument.to_str());
        let general = matches!(first, Some("-h" | "--help" | "-V" | "--version" | "help"));
        if !general && first.is_none_or(|argument| argument.starts_with('-')) {
            arguments.insert(1.min(arguments.len()), "serve".into());
        }
        Self::try_parse_from(arguments)
    }
}

/// What `migrate` takes.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub logging: LoggingArgs,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// What `serve` takes.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address of the endpoint for operators (/health, /ready, /metrics); port 0 takes a free one
    #[arg(long, env = "TALLYMARK_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub admin_listen: SocketAddr,
    /// File that the bound address is written to once the endpoint listens
    #[arg(long, env = "TALLYMARK_ADDRESS_FILE")]
    pub address_file: Option<PathBuf>,
    /// Longest wait for Kafka when the process starts
    #[arg(long, env = "TALLYMARK_STARTUP_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub startup_timeout: Duration,
    #[command(flatten)]
    pub logging: LoggingArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub consumer: ConsumerArgs,
}

/// How the process logs.
#[derive(Args, Clone, Debug)]
pub struct LoggingArgs {
    /// Form of the log lines on standard error: text or json
    #[arg(long, env = "TALLYMARK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info,event_consumer=debug`
    #[arg(long, env = "TALLYMARK_LOG", default_value = "info")]
    pub log: String,
}

/// Where rows are written.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// HTTP interface of ClickHouse
    #[arg(long, env = "CLICKHOUSE_URL", default_value = "http://127.0.0.1:8123")]
    pub clickhouse_url: String,
    /// Database of the usage tables
    #[arg(long, env = "CLICKHOUSE_DATABASE", default_value = "tallymark")]
    pub clickhouse_database: String,
    /// User that may write
    #[arg(long, env = "CLICKHOUSE_USER", default_value = "tallymark")]
    pub clickhouse_user: String,
    /// The user's password
    #[arg(long, env = "CLICKHOUSE_PASSWORD", hide_env_values = true, default_value = "")]
    pub clickhouse_password: Secret,
    /// Cluster that the tables are created and replicated on; none for a single server
    #[arg(long, env = "CLICKHOUSE_CLUSTER")]
    pub clickhouse_cluster: Option<String>,
}

impl StoreArgs {
    pub fn config(&self) -> UsageStoreConfig {
        let Self {
            clickhouse_url,
            clickhouse_database,
            clickhouse_user,
            clickhouse_password,
            clickhouse_cluster,
        } = self;
        UsageStoreConfig {
            cluster: clickhouse_cluster.clone(),
            ..UsageStoreConfig::new(
                clickhouse_url,
                clickhouse_database,
                clickhouse_user,
                clickhouse_password.clone(),
            )
        }
    }
}

/// Where events are read from.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    /// Consumer group
    #[arg(long, env = "KAFKA_GROUP", default_value = "event-consumer")]
    pub kafka_group: String,
    /// Name that this member keeps over restarts, so that a quick restart moves no partitions
    #[arg(long, env = "KAFKA_GROUP_INSTANCE_ID")]
    pub kafka_group_instance_id: Option<String>,
    /// After how long a silent member loses its partitions. The brokers allow no less than 6 s, unless configured
    #[arg(long, env = "KAFKA_SESSION_TIMEOUT", default_value = "6s", value_parser = parse_duration)]
    pub kafka_session_timeout: Duration,
}

impl KafkaArgs {
    /// `topic_epoch` is that of [`ConsumerArgs`].
    pub fn config(&self, topic_epoch: u16) -> KafkaConfig {
        let Self { topic, kafka_group, kafka_group_instance_id, kafka_session_timeout } = self;
        KafkaConfig {
            group: kafka_group.clone(),
            group_instance_id: kafka_group_instance_id.clone(),
            session_timeout: *kafka_session_timeout,
            ..topic.config(topic_epoch)
        }
    }
}

/// How events are consumed.
#[derive(Args, Clone, Debug)]
pub struct ConsumerArgs {
    /// Epoch of the topic; raised, for all services, when the topic is created anew
    #[arg(long, env = "TALLYMARK_TOPIC_EPOCH", default_value_t = 1)]
    pub topic_epoch: u16,
    /// Most rows of a batch
    #[arg(long, env = "TALLYMARK_BATCH_ROWS", default_value_t = BatchLimits::ROWS_MAX)]
    pub batch_rows: usize,
    /// Bytes after which a batch takes no more
    #[arg(long, env = "TALLYMARK_BATCH_BYTES", default_value_t = 64 * 1024 * 1024)]
    pub batch_bytes: usize,
    /// How long a batch waits for more records
    #[arg(long, env = "TALLYMARK_BATCH_AGE", default_value = "1s", value_parser = parse_duration)]
    pub batch_age: Duration,
    /// How long event ids are remembered after their acceptance
    #[arg(long, env = "TALLYMARK_DEDUP_HORIZON", default_value = "35d", value_parser = parse_duration)]
    pub dedup_horizon: Duration,
    /// Memory of the remembered ids, in bytes; 36 for each, and never more than 40
    #[arg(long, env = "TALLYMARK_DEDUP_MEMORY", default_value_t = 1024 * 1024 * 1024)]
    pub dedup_memory: usize,
    /// Oldest `timestamp` that the API accepts; the horizon must not be shorter
    #[arg(long, env = "TALLYMARK_MAX_TIMESTAMP_AGE", default_value = "35d", value_parser = parse_duration)]
    pub max_timestamp_age: Duration,
    /// Longest time that the last batch gets on shutdown
    #[arg(long, env = "TALLYMARK_DRAIN_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// How long records may wait without a commit before /health fails
    #[arg(long, env = "TALLYMARK_STALL_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub stall_timeout: Duration,
}

impl ConsumerArgs {
    /// For the topic `topic` with `partition_count` partitions.
    pub fn config(&self, topic: &str, partition_count: u16) -> ConsumerConfig {
        let Self {
            topic_epoch,
            batch_rows,
            batch_bytes,
            batch_age,
            dedup_horizon,
            dedup_memory,
            max_timestamp_age,
            drain_timeout,
            stall_timeout,
        } = self;
        let source = Source { topic: topic.to_owned(), epoch: *topic_epoch, partition_count };
        ConsumerConfig {
            source,
            batch: BatchLimits {
                rows: *batch_rows,
                bytes: *batch_bytes,
                age: *batch_age,
                ..BatchLimits::default()
            },
            horizon: *dedup_horizon,
            max_timestamp_age: *max_timestamp_age,
            index_bytes_max: *dedup_memory,
            drain_timeout: *drain_timeout,
            stall_timeout: *stall_timeout,
            ..ConsumerConfig::new(partition_count)
        }
    }
}

#[cfg(test)]
mod tests;
