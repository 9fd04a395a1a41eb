//! Copies of events: in one batch, across batches, with the same payload and with another.

use crate::bench::{Bench, event};
use chrono::TimeDelta;
use metering::UsageEvent;

#[test]
fn copies_in_one_batch_and_across_batches_are_counted_once() {
    let mut bench = Bench::new();
    let events: Vec<_> = (0..500).map(|id| event(format!("t{id:04}"), "a")).collect();
    bench.publish(&events);
    bench.publish(&events[..250]);
    let running = bench.start();
    bench.await_consumed();
    bench.publish(&events);
    bench.await_consumed();
    bench.stop(running).unwrap();
    let expected: Vec<_> = (0..500).map(|id| format!("t{id:04} a")).collect();
    assert_eq!(bench.billable(), expected);
    assert_eq!(bench.number("SELECT count() FROM usage_events"), 500, "no copy was stored at all");
    assert_eq!(
        bench
            .lines("SELECT sum(stored), sum(duplicates), sum(conflicts) FROM ingest_batches FINAL"),
        ["500 750 0"]
    );
}

#[test]
fn a_changed_copy_is_a_conflict_and_the_first_payload_stays() {
    let mut bench = Bench::new();
    let first = event("t1", "first");
    let restamped =
        UsageEvent { timestamp: first.timestamp + TimeDelta::days(40), ..first.clone() };
    bench.publish(&[first.clone(), event("t1", "other")]);
    let running = bench.start();
    bench.await_consumed();
    bench.publish(&[restamped, first.clone(), event("t2", "first")]);
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable(), ["t1 first", "t2 first"]);
    let conflicts = "SELECT external_customer_id, timestamp > accepted_at + 1, first_kafka_offset < kafka_offset, \
                     bitAnd(first_payload_fingerprint, 0xffffffffff) = first_payload_fingerprint \
                     FROM usage_event_conflicts FINAL ORDER BY kafka_offset";
    let moved = u8::from(first.timestamp + TimeDelta::days(40) > first.accepted_at);
    let unmoved = u8::from(first.timestamp > first.accepted_at);
    assert_eq!(
        bench.lines(conflicts),
        [format!("other {unmoved} 1 1"), format!("first {moved} 1 1")]
    );
    assert_eq!(
        bench
            .lines("SELECT sum(stored), sum(duplicates), sum(conflicts) FROM ingest_batches FINAL"),
        ["2 1 2"]
    );
}

#[test]
fn a_batch_of_nothing_but_duplicates_moves_on() {
    let mut bench = Bench::new();
    let copy = event("t1", "a");
    bench.publish(std::slice::from_ref(&copy));
    let running = bench.start();
    bench.await_consumed();
    for _ in 0..3 {
        bench.publish(&vec![copy.clone(); 100]);
        bench.await_consumed();
    }
    bench.stop(running).unwrap();
    // Nothing is read again: the offsets were committed.
    let before = bench.number("SELECT count() FROM ingest_batches");
    let running = bench.start();
    bench.publish(&[event("t2", "a")]);
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable(), ["t1 a", "t2 a"]);
    assert_eq!(bench.number("SELECT count() FROM ingest_batches"), before + 1);
}

#[test]
fn events_of_more_months_than_one_insert_takes_are_all_stored() {
    let mut bench = Bench::new();
    let months: Vec<_> = (0..120)
        .map(|month| {
            let example = event(format!("t{month:03}"), "a");
            UsageEvent { timestamp: example.timestamp - TimeDelta::days(31 * month), ..example }
        })
        .collect();
    bench.publish(&months);
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable().len(), 120);
    assert!(bench.number("SELECT uniqExact(token) FROM ingest_batches") >= 3);
}
