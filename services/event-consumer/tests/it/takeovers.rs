//! A consumer is killed, and another one goes on with its partitions, on a real Kafka.

use crate::bench::{Bench, PARTITIONS, event};
use local_engines::kafka::{Kafka, KafkaOptions};
use metering::UsageEvent;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use testkit::wait;

fn events(range: Range<u32>) -> Vec<UsageEvent<'static>> {
    range.map(|id| event(format!("t{id:05}"), "a")).collect()
}

fn occurrences(log: &Path, text: &str) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().matches(text).count()
}

/// Waits until both have opened partitions of theirs for decisions.
#[track_caller]
fn await_both(directory: &Path, names: [&str; 2]) {
    wait::until("both are at work", || {
        let opened = names.map(|name| {
            let log = directory.join(format!("{name}.log"));
            occurrences(&log, "dedup index rebuilt")
        });
        // The first has opened all of them before it had to give some away.
        let all = usize::from(PARTITIONS);
        if opened[0] >= all && opened[1] >= 1 { Ok(()) } else { Err(format!("{opened:?}")) }
    });
}

#[expect(clippy::print_stderr, reason = "the time it took is for people, and no test of anything")]
fn take_over(kafka: &Kafka, topic: &str, instances: [Option<&str>; 2]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut bench = Bench::on_kafka(&kafka.bootstrap(), topic);
    let mut first = bench.spawn("first", instances[0], directory.path());
    bench.publish(&events(0..3_000));
    bench.await_consumed();
    let second = bench.spawn("second", instances[1], directory.path());
    await_both(directory.path(), ["first", "second"]);
    bench.publish(&events(0..3_500));

    // What the first has read, inserted or committed by now is anybody's guess.
    first.kill().expect("it can be killed");
    let killed = Instant::now();
    bench.publish(&events(0..4_000));
    bench.publish(&[event("t00000", "changed")]);
    bench.await_consumed();
    eprintln!("instance ids {instances:?}: taken over after {:?}", killed.elapsed());

    let billable: Vec<_> = (0..4_000).map(|id| format!("t{id:05} a")).collect();
    assert_eq!(bench.billable(), billable);
    assert_eq!(
        bench.number("SELECT uniqExact(kafka_partition, kafka_offset) FROM usage_events"),
        4_000,
        "an event was stored from two places"
    );
    assert_eq!(bench.number("SELECT count() FROM usage_event_conflicts FINAL"), 1);
    drop(second);
}

#[test]
fn a_killed_consumers_partitions_are_taken_over_and_nothing_counts_twice() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let started = Kafka::start(KafkaOptions::new(directory.path()));
    let Some(kafka) = local_engines::require_or_skip("Apache Kafka", started) else { return };
    take_over(&kafka, "without-ids", [None, None]);
    take_over(&kafka, "with-ids", [Some("first"), Some("second")]);
}
