//! Every command and flag, with its environment variable, default and bound.

use crate::replay::range::{ReplayEnd, ReplayStart};
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};
use event_consumer::config::{LoggingArgs, StoreArgs};
use event_log::kafka::{KafkaConfig, TopicArgs};
use service_kit::duration::parse_duration;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use usage_store::Position;

/// Proves, repairs and looks at what Tallymark has stored, beside the running services.
///
/// Exit codes: 0 all is well, 1 something is wrong, 2 it could not be found out.
#[derive(Debug, Parser)]
#[command(name = "tallymark", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove that what was accepted in a period is what is billed
    Reconcile(Box<ReconcileArgs>),
    /// Store a part of the log again; what is there already stays as it is
    Replay(Box<ReplayArgs>),
    /// Look at records that are no events, and send them again
    DeadLetters(Box<DeadLettersArgs>),
}

impl Command {
    pub fn logging(&self) -> &LoggingArgs {
        match self {
            Self::Reconcile(args) => &args.engines.logging,
            Self::Replay(args) => &args.engines.logging,
            Self::DeadLetters(args) => &args.engines().logging,
        }
    }
}

/// Where the log and the store are.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// Data directory of a stack on embedded engines, such as .tallymark; without it the log is Kafka
    #[arg(long, env = "TALLYMARK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub topic: TopicArgs,
    /// Consumer group whose progress counts
    #[arg(long, env = "KAFKA_GROUP", default_value = "event-consumer")]
    pub kafka_group: String,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Epoch of the topic, as the services have it
    #[arg(long, env = "TALLYMARK_TOPIC_EPOCH", default_value_t = 1)]
    pub topic_epoch: u16,
    #[command(flatten)]
    pub logging: LoggingArgs,
}

impl EngineArgs {
    pub fn kafka(&self) -> KafkaConfig {
        KafkaConfig { group: self.kafka_group.clone(), ..self.topic.config(self.topic_epoch) }
    }
}

/// What `reconcile` takes.
#[derive(Args, Clone, Debug)]
pub struct ReconcileArgs {
    /// Start of the period (RFC 3339), by the time of acceptance
    #[arg(long, value_parser = instant, required_unless_present = "every", conflicts_with = "every", requires = "to")]
    pub from: Option<DateTime<Utc>>,
    /// End of the period, which is not part of it
    #[arg(long, value_parser = instant, requires = "from")]
    pub to: Option<DateTime<Utc>>,
    /// Keep running, and prove the last --period again and again; answers /health, /ready and /metrics
    #[arg(long, value_parser = parse_duration)]
    pub every: Option<Duration>,
    /// Length of the period with --every, which ends --settle before the present
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    pub period: Duration,
    /// Only this organization
    #[arg(long)]
    pub organization: Option<String>,
    /// Write the result as JSON into this file, or to standard output for -
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// How long after its acceptance an event may take to be appended to the log
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub settle: Duration,
    /// How long event ids are remembered by the consumer
    #[arg(long, env = "TALLYMARK_DEDUP_HORIZON", default_value = "35d", value_parser = parse_duration)]
    pub dedup_horizon: Duration,
    /// Most memory for the records of one partition, in bytes: 42 for each, and 64 for each conflict and dead
    /// letter; and for the search before that: 17 for each event of the period, or as many as there is room for
    /// at a time, each time with a scan of the table
    #[arg(long, default_value_t = 1024 * 1024 * 1024)]
    pub memory: u64,
    /// Most examples of each kind of finding
    #[arg(long, default_value_t = 5)]
    pub examples: usize,
    /// Address of the endpoint for operators with --every; port 0 takes a free one
    #[arg(long, env = "TALLYMARK_ADMIN_LISTEN", default_value = "127.0.0.1:8082")]
    pub admin_listen: SocketAddr,
    /// File that the bound address is written to once the endpoint listens
    #[arg(long, env = "TALLYMARK_ADDRESS_FILE")]
    pub address_file: Option<PathBuf>,
    #[command(flatten)]
    pub engines: EngineArgs,
}

/// What `replay` takes.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Where to start: a time of append (RFC 3339), partition:offset, or earliest
    #[arg(long)]
    pub from: ReplayStart,
    /// Where to end, which is not part of it: a time, or an offset of the partition of --from; by default
    /// where the consumer has got to
    #[arg(long)]
    pub to: Option<ReplayEnd>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How long event ids are remembered by the consumer
    #[arg(long, env = "TALLYMARK_DEDUP_HORIZON", default_value = "35d", value_parser = parse_duration)]
    pub dedup_horizon: Duration,
    /// Most memory for the ids of one partition, in bytes; 56 to 112 for each
    #[arg(long, default_value_t = 1024 * 1024 * 1024)]
    pub memory: usize,
    #[command(flatten)]
    pub engines: EngineArgs,
}

/// What `dead-letters` takes.
#[derive(Args, Clone, Debug)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

impl DeadLettersArgs {
    pub fn engines(&self) -> &EngineArgs {
        match &self.command {
            DeadLettersCommand::List(args) => &args.engines,
            DeadLettersCommand::Show(args) => &args.engines,
            DeadLettersCommand::Retry(args) => &args.engines,
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List parked records, those parked last first
    List(ListArgs),
    /// Show one parked record with its bytes
    Show(ShowArgs),
    /// Publish parked records that are events by this version's rules and are not billed yet
    Retry(RetryArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only with this reason, such as unknown_version
    #[arg(long)]
    pub reason: Option<String>,
    /// Only those parked at or after it (RFC 3339)
    #[arg(long, value_parser = instant)]
    pub since: Option<DateTime<Utc>>,
    /// Most that are listed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub limit: u64,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engines: EngineArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Which one: topic/epoch/partition/offset, as `list` prints it
    pub record: RecordName,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engines: EngineArgs,
}

#[derive(Args, Clone, Debug)]
pub struct RetryArgs {
    /// Which ones: topic/epoch/partition/offset, as `list` prints it
    #[arg(required_unless_present = "reason", conflicts_with = "reason")]
    pub records: Vec<RecordName>,
    /// All with this reason, at most 100,000
    #[arg(long)]
    pub reason: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub engines: EngineArgs,
}

/// A record of the log: `topic/epoch/partition/offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordName {
    pub topic: String,
    pub position: Position,
}

impl std::str::FromStr for RecordName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.rsplitn(4, '/');
            let offset = parts.next()?.parse().ok()?;
            let partition = parts.next()?.parse().ok()?;
            let epoch = parts.next()?.parse().ok()?;
            let topic = parts.next().filter(|topic| !topic.is_empty())?.to_owned();
            Some(Self { topic, position: Position { epoch, partition, offset } })
        };
        parse().ok_or_else(|| {
            format!("`{text}` is not topic/epoch/partition/offset, such as usage.events/1/3/4711")
        })
    }
}

impl std::fmt::Display for RecordName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Position { epoch, partition, offset } = self.position;
        write!(f, "{}/{epoch}/{partition}/{offset}", self.topic)
    }
}

/// Reads an instant as RFC 3339.
pub fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.to_utc())
        .map_err(|_| format!("`{text}` is not a time such as 2026-11-21T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["tallymark"], arguments].concat())
    }

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_period_is_given_or_repeated_but_not_both() {
        let times = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00+01:00"];
        assert!(parse(&[&["reconcile"], &times[..]].concat()).is_ok());
        assert!(parse(&["reconcile", "--every", "1h", "--period", "24h"]).is_ok());
        for refused in [
            &["reconcile"][..],
            &["reconcile", "--from", "2026-01-01T00:00:00Z"],
            &[
                "reconcile",
                "--every",
                "1h",
                "--from",
                "2026-01-01T00:00:00Z",
                "--to",
                "2026-01-02T00:00:00Z",
            ],
            &["reconcile", "--from", "yesterday", "--to", "today"],
        ] {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn records_are_named_as_they_are_printed() {
        let name: RecordName = "usage.events/2/11/4711".parse().unwrap();
        assert_eq!(name.position, Position { epoch: 2, partition: 11, offset: 4711 });
        assert_eq!(name.to_string(), "usage.events/2/11/4711");
        for refused in ["", "usage.events", "1/2/3", "/1/2/3", "t/1/2/x", "t/70000/2/3"] {
            assert!(refused.parse::<RecordName>().is_err(), "{refused}");
        }
        assert!(parse(&["dead-letters", "retry"]).is_err(), "which ones?");
        assert!(parse(&["dead-letters", "retry", "--reason", "unknown_version"]).is_ok());
    }
}
