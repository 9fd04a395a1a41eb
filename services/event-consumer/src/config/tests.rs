use super::*;

fn parsed(arguments: &[&str]) -> ServeArgs {
    let arguments =
        std::iter::once("event-consumer").chain(arguments.iter().copied()).map(OsString::from);
    match Cli::from_arguments(arguments).unwrap().command {
        Command::Serve(args) => *args,
        Command::Migrate(_) => panic!("not serve"),
    }
}

#[test]
fn flags_and_the_library_have_the_same_defaults() {
    let args = parsed(&[]);
    let (flags, library) = (args.consumer.config("usage.events", 12), ConsumerConfig::new(12));
    assert_eq!(format!("{flags:?}"), format!("{library:?}"));
    library.validate().unwrap();
}

#[test]
fn serve_is_the_default_command() {
    assert_eq!(parsed(&["--topic-epoch", "3"]).consumer.topic_epoch, 3);
    assert_eq!(parsed(&["serve", "--topic-epoch", "4"]).consumer.topic_epoch, 4);
    let migrate = Cli::from_arguments(["event-consumer", "migrate"].map(OsString::from)).unwrap();
    assert!(matches!(migrate.command, Command::Migrate(_)));
}

#[test]
fn each_bound_holds_at_the_bound_and_not_beyond() {
    let check = |change: &dyn Fn(&mut ConsumerConfig)| {
        let mut config = ConsumerConfig::new(1);
        change(&mut config);
        config.validate().is_ok()
    };
    assert!(
        check(&|c| c.batch.rows = 100_000)
            && !check(&|c| c.batch.rows = 100_001)
            && !check(&|c| c.batch.rows = 0)
    );
    assert!(
        check(&|c| c.batch.bytes = 94 << 20)
            && !check(&|c| c.batch.bytes = (94 << 20) + 1)
            && !check(&|c| c.batch.bytes = 0)
    );
    assert!(
        check(&|c| c.batch.months = 50)
            && !check(&|c| c.batch.months = 51)
            && !check(&|c| c.batch.months = 0)
    );
    assert!(
        check(&|c| c.batch.age = Duration::from_secs(60))
            && !check(&|c| c.batch.age = Duration::from_secs(61))
    );
    assert!(
        check(&|c| c.horizon = c.max_timestamp_age)
            && !check(&|c| c.horizon = c.max_timestamp_age - Duration::from_secs(1))
    );
    assert!(check(&|c| c.horizon = 3650 * DAY) && !check(&|c| c.horizon = 3651 * DAY));
    assert!(!check(&|c| c.source.partition_count = 0));
}

#[test]
fn durations_are_bounded() {
    assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
    for wrong in ["0s", "11years", "soon", ""] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let args =
        parsed(&["--clickhouse-password", "hunter2", "--kafka-property", "sasl.password=hunter2"]);
    assert!(
        !format!("{args:?} {:?} {:?}", args.store.config(), args.kafka.config(1))
            .contains("hunter2")
    );
}
