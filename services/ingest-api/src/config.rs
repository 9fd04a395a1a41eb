//! Every flag of the process, with its environment variable, default and bound.

use crate::body::BodyLimits;
use crate::publish::RECORD_OVERHEAD_BYTES;
use chrono::TimeDelta;
use clap::builder::Resettable;
use clap::{Args, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use config_store::Pepper;
use event_log::kafka::TopicArgs;
use metering::ValidationRules;
use service_kit::duration::parse_duration;
use service_kit::http_server::HttpLimits;
use service_kit::secret::Secret;
use service_kit::telemetry::LogFormat;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::AdminCommand;

/// Most events of a request that can be configured.
const EVENTS_PER_REQUEST_MAX: u32 = 100_000;
/// Largest body that can be configured, in bytes.
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Accepts usage events over HTTP and writes them to the log.
#[derive(Debug, Parser)]
#[command(name = "ingest-api", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Admin(Box<AdminCommand>),
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

/// What `serve` takes.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "TALLYMARK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// File that the bound address is written to once the service listens
    #[arg(long, env = "TALLYMARK_ADDRESS_FILE")]
    pub address_file: Option<PathBuf>,
    /// Form of the log lines on standard error: text or json
    #[arg(long, env = "TALLYMARK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info,sqlx=warn`
    #[arg(long, env = "TALLYMARK_LOG", default_value = "info")]
    pub log: String,
    /// Secret that API keys are hashed with; the same for all processes, at least 16 bytes
    #[arg(long, env = "TALLYMARK_API_KEY_PEPPER", hide_env_values = true)]
    pub api_key_pepper: Pepper,
    /// Longest wait for the database and the log when the process starts
    #[arg(long, env = "TALLYMARK_STARTUP_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub startup_timeout: Duration,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub kafka: TopicArgs,
    #[command(flatten)]
    pub serve: ServeConfig,
}

/// Where organizations, keys and metrics are kept.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// `postgres://…` or `sqlite://path`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
}

/// What happens to events of metrics that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownMetricCodes {
    Refuse,
    Accept,
}

/// How the API behaves, whatever engines it runs on.
#[derive(Args, Clone, Debug)]
pub struct ServeConfig {
    /// Oldest `timestamp` of an event, before the time of its request
    #[arg(long, env = "TALLYMARK_MAX_TIMESTAMP_AGE", default_value = "35d", value_parser = parse_duration)]
    pub max_timestamp_age: Duration,
    /// Latest `timestamp` of an event, after the time of its request
    #[arg(long, env = "TALLYMARK_MAX_TIMESTAMP_AHEAD", default_value = "5m", value_parser = parse_duration)]
    pub max_timestamp_ahead: Duration,
    /// Whether events of metrics that do not exist are refused or accepted
    #[arg(long, env = "TALLYMARK_UNKNOWN_METRIC_CODES", value_enum, default_value_t = UnknownMetricCodes::Refuse)]
    pub unknown_metric_codes: UnknownMetricCodes,
    /// Events per second of one organization that this process accepts in the long run
    #[arg(long, env = "TALLYMARK_RATE_LIMIT_EVENTS", default_value = "200000")]
    pub rate_limit_events: NonZeroU32,
    /// Events of one organization at once; at least what one request may hold
    #[arg(long, env = "TALLYMARK_RATE_LIMIT_BURST", default_value = "200000")]
    pub rate_limit_burst: NonZeroU32,
    /// Most events of a request
    #[arg(long, env = "TALLYMARK_MAX_EVENTS_PER_REQUEST", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(EVENTS_PER_REQUEST_MAX)))]
    pub max_events_per_request: u32,
    /// Largest body after decompression, in bytes
    #[arg(long, env = "TALLYMARK_MAX_BODY_BYTES", default_value_t = 16 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..=BODY_BYTES_MAX))]
    pub max_body_bytes: u64,
    /// Largest compressed body, in bytes
    #[arg(long, env = "TALLYMARK_MAX_COMPRESSED_BODY_BYTES", default_value_t = 5 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..=BODY_BYTES_MAX))]
    pub max_compressed_body_bytes: u64,
    /// Bytes that all open requests may hold together, bodies and records
    #[arg(long, env = "TALLYMARK_MAX_IN_FLIGHT_BYTES", default_value_t = 128 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_in_flight_bytes: u64,
    /// Most connections at once
    #[arg(long, env = "TALLYMARK_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Longest time for the headers of a request, and for a kept-alive connection between two requests
    #[arg(long, env = "TALLYMARK_HEADER_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub header_timeout: Duration,
    /// Longest pause within a body
    #[arg(long, env = "TALLYMARK_BODY_IDLE_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub body_idle_timeout: Duration,
    /// Longest time for a whole body
    #[arg(long, env = "TALLYMARK_BODY_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub body_timeout: Duration,
    /// Longest wait for the log to confirm a request's events; above the log's own limit
    #[arg(long, env = "TALLYMARK_PUBLISH_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub publish_timeout: Duration,
    /// Longest time that open requests, and then the log, get to finish on shutdown
    #[arg(long, env = "TALLYMARK_DRAIN_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Epoch of the topic, written into every record; changes when the topic is replaced
    #[arg(long, env = "TALLYMARK_TOPIC_EPOCH", default_value_t = 1)]
    pub topic_epoch: u16,
}

impl Default for ServeConfig {
    fn default() -> Self {
        // The environment of the process must not reach into a default.
        let command = Self::augment_args(clap::Command::new("defaults"))
            .mut_args(|argument| argument.env(Resettable::Reset));
        let matches = command.no_binary_name(true).try_get_matches_from([""; 0]);
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .expect("every argument has a valid default")
    }
}

impl ServeConfig {
    pub(crate) fn rules(&self) -> ValidationRules {
        ValidationRules {
            max_age: delta(self.max_timestamp_age),
            max_ahead: delta(self.max_timestamp_ahead),
            accept_unknown_codes: self.unknown_metric_codes == UnknownMetricCodes::Accept,
        }
    }

    pub(crate) fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            bytes_max: bytes(self.max_body_bytes),
            compressed_bytes_max: bytes(self.max_compressed_body_bytes),
            idle_timeout: self.body_idle_timeout,
            timeout: self.body_timeout,
            events_max: usize::try_from(self.max_events_per_request).unwrap_or(usize::MAX),
        }
    }

    /// The configured burst, and at least one request, which could never pass otherwise.
    pub(crate) fn burst(&self) -> NonZeroU32 {
        NonZeroU32::new(self.max_events_per_request)
            .map_or(self.rate_limit_burst, |request| request.max(self.rate_limit_burst))
    }

    /// The configured budget, and at least the largest request with its records, which could never pass otherwise.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        let BodyLimits { bytes_max, compressed_bytes_max, events_max, .. } = self.body_limits();
        let records = bytes_max.saturating_add(events_max.saturating_mul(RECORD_OVERHEAD_BYTES));
        let largest = bytes_max.saturating_add(compressed_bytes_max).saturating_add(records);
        bytes(self.max_in_flight_bytes).max(largest.saturating_add(1))
    }

    pub(crate) fn http_limits(&self) -> HttpLimits {
        HttpLimits {
            connections_max: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            header_timeout: self.header_timeout,
            drain_timeout: self.drain_timeout,
            ..HttpLimits::default()
        }
    }
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests;
