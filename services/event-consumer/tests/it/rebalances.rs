//! Consumers of one group come and go, on a real Kafka.

use crate::bench::{Bench, event};
use local_engines::kafka::{Kafka, KafkaOptions};
use metering::UsageEvent;
use testkit::wait;

fn events(range: std::ops::Range<u32>, customer: &'static str) -> Vec<UsageEvent<'static>> {
    range.map(|id| event(format!("t{id:05}"), customer)).collect()
}

#[track_caller]
fn await_stored(bench: &Bench, events: u64, conflicts: u64) {
    wait::until("every event is stored", || {
        let stored = bench.reader.number("SELECT uniqExact(transaction_id) FROM usage_events")?;
        let refused = bench.reader.number("SELECT count() FROM usage_event_conflicts FINAL")?;
        if (stored, refused) == (events, conflicts) {
            Ok(())
        } else {
            Err(format!("{stored} events, {refused} conflicts"))
        }
    });
}

#[test]
fn members_that_come_and_go_cost_and_double_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let started = Kafka::start(KafkaOptions::new(directory.path()));
    let Some(kafka) = local_engines::require_or_skip("Apache Kafka", started) else { return };
    let mut bench = Bench::on_kafka(&kafka.bootstrap(), "usage.events");
    bench.config.batch.rows = 300;

    bench.publish(&events(0..2_000, "a"));
    let first = bench.start();
    await_stored(&bench, 2_000, 0);
    // A second member joins while there is work, and every id comes once more.
    let second = bench.start();
    bench.publish(&events(1_000..4_000, "a"));
    bench.publish(&events(0..100, "changed"));
    wait::until("both members are at work", || first.health.ready().and(second.health.ready()));
    await_stored(&bench, 4_000, 100);
    // The first goes; what it had is the second's, whose index has to know it.
    bench.publish(&events(2_000..5_000, "a"));
    bench.stop(first).unwrap();
    bench.publish(&events(0..5_500, "a"));
    await_stored(&bench, 5_500, 100);
    let third = bench.start();
    bench.stop(second).unwrap();
    bench.publish(&events(5_000..6_000, "a"));
    bench.publish(&events(5_900..6_000, "changed"));
    await_stored(&bench, 6_000, 200);
    bench.stop(third).unwrap();

    let billable = bench.billable();
    assert_eq!(billable, (0..6_000).map(|id| format!("t{id:05} a")).collect::<Vec<_>>());
    assert_eq!(
        bench.number(
            "SELECT count() FROM (SELECT DISTINCT kafka_partition, kafka_offset FROM usage_events)"
        ),
        6_000
    );
}
