//! The command line, and every limit with its unit.

use clap::Parser;
use service_kit::secret::Secret;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Longest SQL text, in bytes; also the engine's `max_query_size`.
pub const SQL_BYTES_MAX: usize = 1024 * 1024;
/// Longest body of an INSERT whose statement is in the URL, as sent and as decompressed, in bytes.
pub const INSERT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest body that has to be held in memory: SQL with inline data, multipart, a frame. In bytes.
pub const BUFFERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most statements of the service user that run at once; further ones wait.
pub const SERVICE_STATEMENTS_MAX: usize = 16;
/// Most statements of the reader that run at once, so that people cannot hold up the services.
pub const READER_STATEMENTS_MAX: usize = 6;
/// Longest wait for one of those places before the answer is 503.
pub const PLACE_WAIT: Duration = Duration::from_secs(30);
/// Longest silence of a client in the middle of a body, or of a client that does not read its answer.
pub const PEER_SILENCE: Duration = Duration::from_secs(60);
/// Longest time that open requests get at shutdown.
pub const DRAIN: Duration = Duration::from_secs(20);
/// What one statement of the reader may use: seconds and bytes.
pub const READER_SECONDS_MAX: u64 = 60;
pub const READER_MEMORY_BYTES_MAX: u64 = 400_000_000;

/// The ClickHouse engine on one machine: libchdb behind ClickHouse's HTTP interface, for loopback clients.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Config {
    /// Where tables are kept. One process at a time.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_DATA_DIR")]
    pub data_dir: PathBuf,

    /// A loopback address; port 0 takes a free one.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_LISTEN", default_value = "127.0.0.1:8123", value_parser = loopback)]
    pub listen: SocketAddr,

    /// libchdb.so of release 26.7.
    #[arg(long, env = "CHDB_LIB")]
    pub library: PathBuf,

    /// A file that gets the address once requests are answered.
    #[arg(long)]
    pub port_file: Option<PathBuf>,

    /// The user that may create, change and fill tables.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_SERVICE_USER", default_value = "tallymark")]
    pub service_user: String,

    #[arg(long, env = "EMBEDDED_CLICKHOUSE_SERVICE_PASSWORD", hide_env_values = true)]
    pub service_password: Secret,

    /// The user that may only read, and only the reader's databases.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_READER_USER", default_value = "tallymark_reader")]
    pub reader_user: String,

    #[arg(long, env = "EMBEDDED_CLICKHOUSE_READER_PASSWORD", hide_env_values = true)]
    pub reader_password: Secret,

    /// What the reader may read: a database, or the beginning of database names followed by `*`.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_READER_DATABASE", default_value = "tallymark")]
    pub reader_database: DatabasePattern,

    /// Most memory of the engine, in bytes.
    #[arg(long, env = "EMBEDDED_CLICKHOUSE_MAX_MEMORY", default_value_t = 900_000_000, value_parser = clap::value_parser!(u64).range(200_000_000..))]
    pub max_memory: u64,

    /// End when standard input does, which is when the parent process is gone.
    #[arg(long)]
    pub exit_with_parent: bool,
}

/// A database name or a prefix with `*`, safe to be written into a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabasePattern(String);

impl DatabasePattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DatabasePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if text.is_empty() || text.len() > 64 || !plain {
            return Err("use letters, digits and `_`, with `*` at the end or not at all".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = match text.parse::<u16>() {
        Ok(port) => (Ipv4Addr::LOCALHOST, port).into(),
        Err(_) => text
            .parse()
            .map_err(|_| "use an address and a port, such as 127.0.0.1:8123".to_owned())?,
    };
    if !address.ip().is_loopback() {
        return Err(format!(
            "{} is not a loopback address; other machines use a ClickHouse server",
            address.ip()
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        assert_eq!(loopback("0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(loopback("[::1]:9").unwrap().to_string(), "[::1]:9");
        for refused in
            ["0.0.0.0:8123", "192.168.1.4:8123", "[::]:1", "localhost", "127.0.0.1:65536"]
        {
            assert!(loopback(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_database_pattern_cannot_carry_sql() {
        for good in ["tallymark", "test_*", "*"] {
            assert_eq!(good.parse::<DatabasePattern>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a*b", "a; DROP", "<x>", "a TO default"] {
            assert!(bad.parse::<DatabasePattern>().is_err(), "{bad}");
        }
    }
}
