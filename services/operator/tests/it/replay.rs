//! A replay restores what a store has lost, and changes nothing where nothing is lost.

use crate::bench::{Bench, event, now, on_both_logs, owner, replay_request};
use chrono::TimeDelta;
use metering::UsageEvent;
use operator::replay::range::{ReplayEnd, ReplayStart};
use operator::replay::{ReplayError, Request};
use testkit::wait;

/// Events of three months with repeats, conflicts and records that are no events.
fn filled(mut bench: Bench) -> Bench {
    let events: Vec<_> = (0..120_i64)
        .map(|n| {
            let event = event(format!("t{n:03}"), n.into());
            UsageEvent { timestamp: event.timestamp - TimeDelta::days(30 * (n % 3)), ..event }
        })
        .collect();
    bench.publish(&events[..80]);
    bench.consume();
    bench.publish(&events);
    let changed: Vec<_> = (0..10).map(|n| event(format!("t{n:03}"), n + 1000)).collect();
    bench.publish(&changed);
    bench.publish_raw(&[(0, Vec::new(), b"garbage".to_vec()), (2, Vec::new(), Vec::new())]);
    bench.consume();
    bench
}

#[test]
fn a_dropped_partition_is_restored_exactly_and_a_second_replay_changes_nothing() {
    on_both_logs(|bench| {
        let bench = filled(bench);
        let (before, audit) =
            (bench.bill(), bench.lines("SELECT * FROM ingest_batches FINAL ORDER BY ALL"));
        let month = event("t000", 0).timestamp.format("%Y%m").to_string();
        bench.execute(&format!("ALTER TABLE usage_events DROP PARTITION {month}"));
        assert!(bench.bill().len() < before.len());
        assert!(!bench.reconcile().passed);
        for _ in 0..2 {
            assert_eq!(bench.replay(), [120, 80, 10, 2]);
            assert_eq!(bench.bill(), before);
            assert_eq!(
                bench.lines("SELECT * FROM ingest_batches FINAL ORDER BY ALL"),
                audit,
                "the audit is as it was"
            );
            assert_eq!(bench.number("SELECT count() FROM usage_event_conflicts FINAL"), 10);
            assert_eq!(bench.number("SELECT count() FROM dead_letters FINAL"), 2);
            assert!(bench.reconcile().passed);
        }
    });
}

/// One event in one partition: the replay cuts the consumer's batch, whose tokens the tables remember.
#[test]
fn rows_that_somebody_deleted_are_restored_although_the_same_insert_is_remembered() {
    on_both_logs(|mut bench| {
        let first = event("a", 1);
        let changed = UsageEvent { value: None, ..first.clone() };
        bench.publish(std::slice::from_ref(&first));
        bench.consume();
        bench.publish(&[changed]);
        bench.consume();
        bench.publish_raw(&[(owner(&first), Vec::new(), b"garbage".to_vec())]);
        bench.consume();
        let tables = ["usage_events", "usage_event_conflicts", "dead_letters"];
        let counts = |bench: &Bench| {
            tables.map(|table| bench.number(&format!("SELECT count() FROM {table} FINAL")))
        };
        let before = bench.bill();
        assert_eq!(counts(&bench), [1, 1, 1]);
        for how in ["ALTER TABLE {} DELETE WHERE 1", "DELETE FROM {} WHERE 1"] {
            for table in tables {
                bench.execute(&how.replace("{}", table));
            }
            wait::until("they are deleted", || match counts(&bench) {
                [0, 0, 0] => Ok(()),
                left => Err(format!("{left:?}")),
            });
            assert_eq!(bench.replay(), [1, 0, 1, 1]);
            assert_eq!(counts(&bench), [1, 1, 1], "{how}");
            assert_eq!(bench.bill(), before);
        }
        assert!(bench.reconcile().passed);
    });
}

#[test]
fn a_store_that_is_empty_is_filled_again_with_its_audit() {
    on_both_logs(|bench| {
        let bench = filled(bench);
        let before = bench.bill();
        let conflicts = bench.lines("SELECT * FROM usage_event_conflicts FINAL ORDER BY ALL");
        for table in ["usage_events", "usage_event_conflicts", "dead_letters", "ingest_batches"] {
            bench.execute(&format!("TRUNCATE TABLE {table}"));
        }
        let dry = Request { dry_run: true, ..replay_request(ReplayStart::Earliest) };
        let planned: u64 = bench.try_replay(&dry).unwrap().iter().map(|r| r.tally.stored).sum();
        assert_eq!((planned, bench.bill().len()), (120, 0), "a dry run stores nothing");
        assert_eq!(bench.replay(), [120, 80, 10, 2]);
        assert_eq!(bench.bill(), before);
        assert_eq!(
            bench.lines("SELECT * FROM usage_event_conflicts FINAL ORDER BY ALL"),
            conflicts
        );
        assert_eq!(bench.number("SELECT sum(records) FROM ingest_batches FINAL"), 212);
        assert!(bench.reconcile().passed);
    });
}

#[test]
fn a_later_copy_is_never_billed_for_the_first_one() {
    let mut bench = Bench::embedded();
    let (first, restamped) = (
        event("a", 1),
        UsageEvent { timestamp: event("a", 1).timestamp + TimeDelta::days(1), ..event("a", 1) },
    );
    bench.publish(std::slice::from_ref(&first));
    bench.consume();
    bench.publish(std::slice::from_ref(&restamped));
    bench.consume();
    let before = bench.bill();
    let second = ReplayStart::At { partition: owner(&first), offset: 1 };
    // The store knows the first copy.
    let replayed = bench.try_replay(&replay_request(second)).unwrap();
    assert_eq!((replayed.len(), replayed[0].tally.stored, replayed[0].tally.conflicts), (1, 0, 1));
    // Only the log knows it.
    bench.execute("TRUNCATE TABLE usage_events");
    let replayed = bench.try_replay(&replay_request(second)).unwrap();
    assert_eq!((replayed[0].tally.stored, replayed[0].tally.conflicts), (0, 1));
    assert_eq!(bench.bill().len(), 0);
    assert_eq!(bench.replay()[0], 1);
    assert_eq!(bench.bill(), before);
}

#[test]
fn what_only_the_audit_knows_stops_a_replay_instead_of_billing_twice() {
    let mut bench = Bench::embedded();
    let first = event("a", 1);
    bench.publish(std::slice::from_ref(&first));
    bench.consume();
    bench.expire(TimeDelta::days(2));
    bench.publish(std::slice::from_ref(&first));
    bench.consume();
    assert_eq!(bench.bill().len(), 1);
    bench.execute("TRUNCATE TABLE usage_events");
    let refused = bench.try_replay(&replay_request(ReplayStart::Earliest)).unwrap_err();
    assert!(
        matches!(refused, ReplayError::StoresMore { audit: 0, found: 1, first: 1, last: 1, .. }),
        "{refused}"
    );
    assert_eq!(bench.bill().len(), 0, "nothing was stored");
}

#[test]
fn a_part_can_be_replayed_by_time_and_offset_and_never_beyond_the_consumer() {
    let mut bench = Bench::embedded();
    let events: Vec<_> = (0..90).map(|n| event(format!("t{n:02}"), n)).collect();
    bench.publish(&events[..45]);
    bench.consume();
    let middle = bench.engines().reader.watermarks(0).unwrap().high;
    bench.publish(&events[45..]);
    bench.consume();
    let high = bench.engines().reader.watermarks(0).unwrap().high;
    bench.execute("CREATE TABLE audit AS ingest_batches");
    bench.execute(&format!("INSERT INTO audit SELECT any(topic), 1, 0, 0, {middle} - 1, {middle}, {middle}, 0, 0, 0, 0, '', now64(3) FROM ingest_batches"));
    bench.execute("INSERT INTO audit SELECT * FROM ingest_batches WHERE kafka_partition != 0");
    bench.execute("EXCHANGE TABLES ingest_batches AND audit");
    bench.publish(&[event("new-1", 1), event("new-2", 1), event("new-3", 1), event("new-4", 1)]);
    bench.execute("TRUNCATE TABLE usage_events");
    let of = |from, to| bench.try_replay(&Request { to, ..replay_request(from) });
    let part = of(ReplayStart::At { partition: 0, offset: 2 }, Some(ReplayEnd::Offset(5))).unwrap();
    // What the audit speaks of is replayed whole.
    assert_eq!((part.len(), part[0].offsets.clone(), part[0].tally.stored), (1, 0..middle, middle));
    assert_eq!(bench.bill().len(), usize::try_from(middle).unwrap());
    let start = ReplayStart::At { partition: 0, offset: middle + 1 };
    let unaudited = of(start, Some(ReplayEnd::Offset(middle + 3))).unwrap();
    assert_eq!(unaudited[0].offsets, middle + 1..middle + 3);
    let beyond = of(start, Some(ReplayEnd::Offset(10_000))).unwrap();
    assert_eq!(beyond[0].offsets, middle + 1..high);
    let hour = TimeDelta::hours(1);
    let none = of(ReplayStart::Time(now() + hour), None).unwrap();
    assert!(none.iter().all(|replayed| replayed.offsets.is_empty()));
    let all = of(ReplayStart::Time(now() - hour), Some(ReplayEnd::Time(now() + hour))).unwrap();
    assert_eq!(all.iter().map(|replayed| replayed.tally.stored).sum::<u64>(), 90);
    for refused in [
        of(ReplayStart::Earliest, Some(ReplayEnd::Offset(5))),
        of(ReplayStart::At { partition: 9, offset: 0 }, None),
    ] {
        assert!(matches!(refused, Err(ReplayError::Range(_))), "{refused:?}");
    }
}

/// The audit tells a repeat from an id that was used again after the horizon.
#[test]
fn an_id_that_was_billed_again_after_the_horizon_is_restored() {
    let mut bench = Bench::embedded();
    let first = UsageEvent { accepted_at: now() - TimeDelta::days(36), ..event("again", 1) };
    let second =
        UsageEvent { timestamp: first.timestamp + TimeDelta::days(36), ..event("again", 2) };
    bench.publish(&[first]);
    bench.consume();
    bench.publish(&[second.clone(), second]);
    bench.consume();
    let stored = |bench: &Bench| {
        let part = ReplayStart::At { partition: owner(&event("again", 1)), offset: 1 };
        let replayed = bench.try_replay(&replay_request(part)).unwrap();
        (replayed[0].tally.stored, replayed[0].tally.conflicts, replayed[0].not_restored)
    };
    // This consumer remembered the first one.
    assert_eq!(stored(&bench), (0, 2, 0));
    bench.execute("CREATE TABLE audit AS ingest_batches");
    for (billed, expected) in [(1, (1, 0, 0)), (2, (0, 2, 2))] {
        bench.execute("TRUNCATE TABLE audit");
        bench.execute(&format!(
            "INSERT INTO audit SELECT * REPLACE ({billed} AS stored, 2 - {billed} AS duplicates, 0 AS conflicts) FROM ingest_batches FINAL WHERE first_offset = 1 AND records = 2"
        ));
        bench.execute("EXCHANGE TABLES ingest_batches AND audit");
        assert_eq!(stored(&bench), expected, "the audit has {billed}");
    }
}

#[test]
fn too_many_ids_for_the_memory_are_an_error() {
    let bench = filled(Bench::embedded());
    let small = Request { memory: 1000, ..replay_request(ReplayStart::Earliest) };
    assert!(matches!(bench.try_replay(&small), Err(ReplayError::TooMuch { allowed: 1000, .. })));
}
