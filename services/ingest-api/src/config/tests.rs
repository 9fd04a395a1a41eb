use super::*;

const REQUIRED: [&str; 4] =
    ["--database-url", "sqlite://config.db", "--api-key-pepper", "sixteen bytes or more"];

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::from_arguments(["ingest-api"].iter().chain(arguments).map(OsString::from))
}

fn serve(arguments: &[&str]) -> Result<ServeArgs, clap::Error> {
    match parse(&[&REQUIRED, arguments].concat())?.command {
        Command::Serve(args) => Ok(*args),
        Command::Admin(command) => panic!("{command:?}"),
    }
}

#[test]
fn serving_is_the_default_command() {
    for first in [&[][..], &["serve"][..]] {
        let cli = parse(&[first, &REQUIRED].concat()).unwrap();
        assert!(matches!(cli.command, Command::Serve(_)), "{cli:?}");
    }
    let cli = parse(&["migrate", "--database-url", "sqlite://config.db"]).unwrap();
    assert!(
        matches!(cli.command, Command::Admin(ref command) if matches!(**command, AdminCommand::Migrate(_))),
        "{cli:?}"
    );
    assert_eq!(parse(&["--version"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = ServeConfig::default();
    assert_eq!(config.rules(), ValidationRules::default());
    let limits = config.body_limits();
    assert_eq!(
        (limits.events_max, limits.bytes_max, limits.compressed_bytes_max),
        (10_000, 16 << 20, 5 << 20)
    );
    assert_eq!(config.in_flight_bytes(), 128 << 20);
    assert_eq!((config.rate_limit_events.get(), config.burst().get()), (200_000, 200_000));
    assert_eq!(config.http_limits().header_timeout, Duration::from_secs(30));
    let args = serve(&[]).unwrap();
    assert_eq!(args.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(args.kafka.config(1).topic, "usage.events");
}

#[test]
fn secrets_are_not_printed() {
    let args = serve(&["--kafka-property", "sasl.password=hunter2"]).unwrap();
    assert_eq!(
        args.kafka.config(1).properties,
        [("sasl.password".to_owned(), "hunter2".to_owned())]
    );
    let printed = format!("{args:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("sixteen bytes"), "{printed}");
}

#[test]
fn bounds_are_kept() {
    for (flag, good, bad) in [
        ("--max-events-per-request", "100000", "100001"),
        ("--max-events-per-request", "1", "0"),
        ("--max-body-bytes", "268435456", "268435457"),
        ("--kafka-partitions", "1024", "1025"),
        ("--rate-limit-events", "1", "0"),
        ("--header-timeout", "1ms", "0s"),
        ("--max-timestamp-age", "3650d", "3651d"),
        ("--unknown-metric-codes", "accept", "maybe"),
    ] {
        assert!(serve(&[flag, good]).is_ok(), "{flag} {good}");
        assert!(serve(&[flag, bad]).is_err(), "{flag} {bad}");
    }
    let short = parse(&["--database-url", "sqlite://config.db", "--api-key-pepper", "short"]);
    assert!(short.unwrap_err().to_string().contains("at least 16 bytes"));
}

#[test]
fn one_request_always_fits_the_limits_of_all() {
    let config = ServeConfig {
        rate_limit_burst: NonZeroU32::MIN,
        max_in_flight_bytes: 1,
        ..ServeConfig::default()
    };
    assert_eq!(config.burst().get(), 10_000);
    assert_eq!(config.in_flight_bytes(), (2 * 16 + 5) * (1 << 20) + 10_000 * 160 + 1);
}
