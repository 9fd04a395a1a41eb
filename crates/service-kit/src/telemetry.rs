//! Logs to standard error, as lines for people or as JSON for machines.

use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format; use text or json")),
        }
    }
}

/// Sends this process's logs to standard error. `filter` is in the syntax of `tracing_subscriber`,
/// such as `info,sqlx=warn`. A second call changes nothing.
pub fn init(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    // An error means that a subscriber is installed already, as in tests; that one stays.
    match format {
        LogFormat::Text => drop(builder.try_init()),
        LogFormat::Json => drop(builder.json().try_init()),
    }
}
