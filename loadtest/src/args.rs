//! What a run can be told, with its bounds.

use crate::bounds::Bounds;
use crate::event::{Aggregation, Metric};
use clap::Parser;
use service_kit::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// Sends usage events at a constant rate, then asks ClickHouse whether each accepted one is counted exactly once.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// The API, such as http://127.0.0.1:8080; connections are spread over several.
    #[arg(long, env = "TALLYMARK_URL", value_delimiter = ',', required = true)]
    pub url: Vec<String>,

    /// A key that may send events.
    #[arg(
        long,
        env = "TALLYMARK_API_KEY",
        hide_env_values = true,
        required_unless_present = "keys"
    )]
    pub api_key: Option<Secret>,

    /// The organization of the key; when given, rows of another one fail the verdict.
    #[arg(long, env = "TALLYMARK_ORGANIZATION", default_value = "")]
    pub organization: String,

    /// Several organizations instead, as `organization=key`. They get the same transaction ids.
    #[arg(long, env = "TALLYMARK_API_KEYS", hide_env_values = true, value_delimiter = ',', value_parser = parse_key)]
    pub keys: Vec<OrganizationKey>,

    /// Events per second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,

    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub events_per_request: u64,

    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub duration: Duration,

    /// Share of events that repeat an accepted one, such as 2%.
    #[arg(long, default_value = "2%", value_parser = parse_share)]
    pub duplicates: u32,

    /// Share of events that repeat an accepted one with another timestamp or value, such as 1%.
    #[arg(long, default_value = "1%", value_parser = parse_share)]
    pub changed: u32,

    /// Share of events that are confusable ids, quantities at the limits or instants at borders; a
    /// quarter as many are invalid and have to be refused.
    #[arg(long, default_value = "0%", value_parser = parse_share)]
    pub edge_cases: u32,

    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pub customers: u32,

    /// The organization's metrics to send events for, each with `count`, with `sum`, or with
    /// `sum:` and the property that holds the quantity.
    #[arg(long, value_delimiter = ',', default_value = "api_calls=count,tokens=sum:tokens", value_parser = parse_metric)]
    pub codes: Vec<Metric>,

    /// The same seed sends the same events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Connections, each with at most one request in flight. When all are busy, requests start late,
    /// which their latency includes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub connections: u16,

    /// After it the outcome of a request is unknown.
    #[arg(long, default_value = "40s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// How long after the duration late requests may still start; those that could not are reported.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub overtime: Duration,

    /// How long requests with an unknown outcome are retried after the run.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub resolve_within: Duration,

    /// Processes whose CPU and memory are reported, such as standalone=4711,engine=4712.
    #[arg(long, env = "TALLYMARK_PIDS", value_delimiter = ',', value_parser = parse_process)]
    pub processes: Vec<NamedProcess>,

    /// Where the ledger of the run is written.
    #[arg(long, default_value = "target/loadtest")]
    pub ledger_dir: PathBuf,

    /// Sends a request only once its line of the ledger is on the disk, so that the ledger outlasts the
    /// machine too. Without it the line is with the operating system by then.
    #[arg(long)]
    pub sync_ledger: bool,

    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// Judges a run by its ledger once more: asks ClickHouse whether each accepted event is counted exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "loadtest check", version, about)]
pub struct CheckArgs {
    /// The ledger that the run wrote.
    #[arg(long)]
    pub ledger: PathBuf,

    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// Where the store is, and what to expect of it.
#[derive(Clone, Debug, clap::Args)]
pub struct JudgeArgs {
    /// ClickHouse's HTTP interface; user, password and `?database=` may be part of it.
    #[arg(long, env = "CLICKHOUSE_URL", hide_env_values = true)]
    pub clickhouse_url: String,

    /// A user that may read the billing views, if the URL has none.
    #[arg(long, env = "CLICKHOUSE_USER")]
    pub clickhouse_user: Option<String>,

    #[arg(long, env = "CLICKHOUSE_PASSWORD", hide_env_values = true)]
    pub clickhouse_password: Option<Secret>,

    /// How long the store may take to show everything accepted.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub catch_up_within: Duration,

    /// Nobody else wrote to the log or the store: every row is judged, and the audit has to agree with
    /// the tables and the ledger.
    #[arg(long, overrides_with = "exclusive")]
    pub exclusive: bool,

    /// Dead letters in the store, such as 3 or 3..5; none with `--exclusive`, any number without.
    #[arg(long)]
    pub expect_dead_letters: Option<Bounds>,

    /// Records of the log that others added and that are copies of events, such as 3 or 3..5; only with
    /// `--exclusive`.
    #[arg(long, default_value = "0")]
    pub expect_foreign_records: Bounds,

    /// The log may hold an event more often than it was sent, as without an idempotent producer.
    #[arg(long)]
    pub log_may_duplicate: bool,

    /// Valid events may be refused, as with a clock that is wrong by days.
    #[arg(long)]
    pub allow_refusals: bool,

    /// Also writes the report as JSON to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// An API key and the organization it belongs to.
#[derive(Clone, Debug)]
pub struct OrganizationKey {
    /// Empty when it is not known.
    pub organization: String,
    pub key: Secret,
}

impl Args {
    /// The keys to send with, at least one.
    pub fn credentials(&self) -> Vec<OrganizationKey> {
        let single = self.api_key.iter().map(|key| OrganizationKey {
            organization: self.organization.clone(),
            key: key.clone(),
        });
        if self.keys.is_empty() { single.collect() } else { self.keys.clone() }
    }
}

/// A process to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProcess {
    pub name: String,
    pub pid: u32,
}

/// A percentage with at most two digits after the point, as parts of 10,000; at most a quarter, so
/// that repeats leave room for the events they repeat.
fn parse_share(text: &str) -> Result<u32, String> {
    let wrong = || {
        format!(
            "`{text}` is not a percentage from 0% to 25% with at most two digits after the point, such as 2% or 0.5%"
        )
    };
    let digits = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.len() > 2
        || fraction.is_empty()
        || fraction.len() > 2
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(wrong());
    }
    let parts: u32 = format!("{whole}{fraction:0<2}").parse().map_err(|_| wrong())?;
    if parts <= 2_500 { Ok(parts) } else { Err(wrong()) }
}

fn parse_metric(text: &str) -> Result<Metric, String> {
    let wrong = || format!("`{text}` is not `code=count`, `code=sum` or `code=sum:field`");
    let (code, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (aggregation, field) = match rest.split_once(':') {
        Some((aggregation, field)) => (aggregation, Some(field)),
        None => (rest, None),
    };
    // They are written into JSON and SQL as they are.
    let plain = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    if !plain(code) || !field.is_none_or(plain) {
        return Err(wrong());
    }
    let aggregation = match (aggregation, field) {
        ("count", None) => Aggregation::Count,
        ("sum", _) => Aggregation::Sum,
        _ => return Err(wrong()),
    };
    Ok(Metric { code: code.to_owned(), aggregation, field: field.map(str::to_owned) })
}

fn parse_key(text: &str) -> Result<OrganizationKey, String> {
    match text.split_once('=') {
        Some((organization, key)) if !organization.is_empty() && !key.is_empty() => {
            Ok(OrganizationKey { organization: organization.to_owned(), key: Secret::new(key) })
        }
        // The text may be a key, so it is not repeated.
        _ => Err("a key is given as `organization=key`".to_owned()),
    }
}

fn parse_process(text: &str) -> Result<NamedProcess, String> {
    let wrong = || format!("`{text}` is not `name=pid`");
    let (name, pid) = text.split_once('=').ok_or_else(wrong)?;
    let pid = pid.trim().parse().map_err(|_| wrong())?;
    Ok(NamedProcess { name: name.trim().to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(more: &[&str]) -> Result<Args, clap::Error> {
        let required =
            ["loadtest", "--url", "http://a", "--api-key", "k", "--clickhouse-url", "http://b"];
        Args::try_parse_from(required.iter().chain(more))
    }

    #[test]
    fn the_defaults_are_the_documented_run() {
        let args = parsed(&[]).unwrap();
        assert_eq!(
            (args.rate, args.events_per_request, args.duplicates, args.changed),
            (20_000, 100, 200, 100)
        );
        assert_eq!(args.codes.len(), 2);
        assert!(args.processes.is_empty());
    }

    #[test]
    fn lists_and_shares_are_read() {
        let args = parsed(&[
            "--processes",
            "standalone=12,engine=34",
            "--duplicates",
            "0.5%",
            "--codes",
            "a=sum:b",
        ])
        .unwrap();
        assert_eq!(args.processes[1], NamedProcess { name: "engine".to_owned(), pid: 34 });
        assert_eq!(args.duplicates, 50);
        assert_eq!(
            args.codes,
            [Metric {
                code: "a".to_owned(),
                aggregation: Aggregation::Sum,
                field: Some("b".to_owned())
            }]
        );
    }

    #[test]
    fn keys_of_several_organizations_replace_the_single_one() {
        let args = parsed(&["--organization", "org_a"]).unwrap();
        assert_eq!(args.credentials()[0].organization, "org_a");
        let args = parsed(&["--keys", "org_a=k1,org_b=k=2"]).unwrap();
        let credentials = args.credentials();
        let names: Vec<&str> = credentials.iter().map(|key| key.organization.as_str()).collect();
        assert_eq!(names, ["org_a", "org_b"]);
        assert_eq!(credentials[1].key.expose(), "k=2");
        assert!(parsed(&["--keys", "k1"]).is_err());
    }

    #[test]
    fn a_check_needs_a_ledger_and_a_store() {
        let all = ["check", "--ledger", "a.ledger", "--clickhouse-url", "http://b", "--exclusive"];
        let args = CheckArgs::try_parse_from(all.iter().chain(&["--expect-dead-letters", "3..5"]));
        let judge = args.unwrap().judge;
        assert_eq!(judge.expect_dead_letters, Some(Bounds { min: 3, max: 5 }));
        assert!(judge.exclusive && !judge.log_may_duplicate);
        assert!(CheckArgs::try_parse_from(&all[..2]).is_err());
    }

    #[test]
    fn values_beyond_a_bound_are_refused() {
        assert!(parsed(&["--rate", "1000000"]).is_ok());
        assert!(parsed(&["--duplicates", "25%"]).is_ok());
        let wrong = [
            ["--rate", "0"],
            ["--rate", "1000001"],
            ["--events-per-request", "10001"],
            ["--duplicates", "25.01%"],
            ["--duplicates", "2"],
            ["--edge-cases", "26%"],
            ["--duplicates", "1.234%"],
            ["--codes", "a=max"],
            ["--codes", "a=count:b"],
            ["--codes", "a=sum:"],
            ["--codes", "a b=sum"],
            ["--connections", "0"],
            ["--processes", "x=y"],
        ];
        for pair in wrong {
            assert!(parsed(&pair).is_err(), "{pair:?}");
        }
    }
}
