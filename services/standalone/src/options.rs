//! Every flag of a local stack, with its bound and default.

use clap::ValueEnum;
use service_kit::secret::Secret;
use service_kit::telemetry::LogFormat;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What a local stack stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engines {
    /// One process: the log and the configuration on SQLite, the ClickHouse engine as a child.
    Embedded,
    /// Separate services on Apache Kafka and Postgres, with the ClickHouse engine as a child.
    Servers,
}

/// A service of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    IngestApi,
    EventConsumer,
}

/// Runs a whole Tallymark on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What the stack stands on.
    #[arg(long, env = "TALLYMARK_ENGINES", default_value = "embedded")]
    pub engines: Engines,

    /// Where all data and secrets of this stack are kept; by default `.tallymark` for embedded
    /// engines and `.tallymark-servers` for servers.
    #[arg(long, env = "TALLYMARK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address of the API; port 0 takes a free one.
    #[arg(long, env = "TALLYMARK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Port of the ClickHouse interface on loopback; by default 8123 if it is free, and a free one if
    /// it is not or if the API takes a free one.
    #[arg(long, env = "TALLYMARK_CLICKHOUSE_PORT")]
    pub clickhouse_port: Option<u16>,

    /// Port of event-consumer's admin endpoint on loopback, when it is a process of its own; by default
    /// 8081 under the same conditions.
    #[arg(long, env = "TALLYMARK_ADMIN_PORT")]
    pub admin_port: Option<u16>,

    /// Which services run.
    #[arg(
        long,
        env = "TALLYMARK_SERVICES",
        value_delimiter = ',',
        default_value = "ingest-api,event-consumer"
    )]
    pub services: Vec<Service>,

    /// How long a part that died stays down before it is started again.
    #[arg(long, env = "TALLYMARK_RESTART_DELAY", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub restart_delay: Duration,

    /// Logs as text for people or as JSON.
    #[arg(long, env = "TALLYMARK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which logs are shown, such as `info` or `event_consumer=debug,warn`.
    #[arg(long, env = "TALLYMARK_LOG", default_value = "warn")]
    pub log: String,

    #[command(flatten)]
    pub urls: Urls,
}

impl Engines {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Servers => "servers",
        }
    }

    pub(crate) const fn default_data_dir(self) -> &'static str {
        match self {
            Self::Embedded => ".tallymark",
            Self::Servers => ".tallymark-servers",
        }
    }
}

impl Options {
    pub(crate) fn clickhouse_port(&self) -> u16 {
        self.clickhouse_port.unwrap_or_else(|| self.usual_if_free(8123))
    }

    pub(crate) fn admin_listen(&self) -> SocketAddr {
        SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            self.admin_port.unwrap_or_else(|| self.usual_if_free(8081)),
        ))
    }

    /// A port that people know, unless this stack runs beside another one.
    fn usual_if_free(&self, port: u16) -> u16 {
        let free = self.listen.port() != 0
            && std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free { port } else { 0 }
    }
}

/// Servers that run elsewhere; each one replaces an engine that would be started here.
#[derive(Clone, Debug, clap::Args)]
pub struct Urls {
    /// A ClickHouse server, such as http://clickhouse:8123, instead of the engine child.
    #[arg(long, env = "CLICKHOUSE_URL", requires = "clickhouse_password")]
    pub clickhouse_url: Option<String>,

    /// The database of the services and of the views.
    #[arg(long, env = "CLICKHOUSE_DATABASE", default_value = "tallymark")]
    pub clickhouse_database: String,

    /// The services' own user.
    #[arg(long, env = "CLICKHOUSE_USER", default_value = "tallymark")]
    pub clickhouse_user: String,

    /// The password of the services' own user.
    #[arg(long, env = "CLICKHOUSE_PASSWORD", hide_env_values = true)]
    pub clickhouse_password: Option<Secret>,

    /// The read-only user that is printed for people.
    #[arg(long, env = "CLICKHOUSE_READER_USER", default_value = "tallymark_reader")]
    pub clickhouse_reader_user: String,

    /// The password of the read-only user.
    #[arg(long, env = "CLICKHOUSE_READER_PASSWORD", hide_env_values = true)]
    pub clickhouse_reader_password: Option<Secret>,

    /// Kafka brokers instead of one that is started here. Only with `--engines servers`.
    #[arg(long, env = "KAFKA_BROKERS")]
    pub kafka_brokers: Option<String>,

    /// A Postgres database instead of one that is started here. Only with `--engines servers`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}
