//! The index is read back after a restart, and the log and the store have to fit each other.

use crate::bench::{Bench, event};
use event_consumer::ConsumerError;
use std::time::Duration;
use testkit::wait;

#[test]
fn a_restarted_consumer_knows_what_was_stored() {
    let mut bench = Bench::new();
    let events: Vec<_> = (0..300).map(|id| event(format!("t{id:03}"), "a")).collect();
    bench.publish(&events);
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();

    bench.publish(&events);
    bench.publish(&[event("t000", "changed"), event("t300", "a")]);
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable().len(), 301);
    assert_eq!(bench.number("SELECT count() FROM usage_events"), 301);
    assert_eq!(
        bench
            .lines("SELECT sum(stored), sum(duplicates), sum(conflicts) FROM ingest_batches FINAL"),
        ["301 300 1"]
    );
}

#[test]
fn shutdown_stores_and_commits_what_was_read() {
    let mut bench = Bench::new();
    // The batch would stay open for long.
    bench.config.batch.age = Duration::from_secs(60);
    let running = bench.start();
    wait::until("the consumer is ready", || running.health.ready());
    bench.publish(&[event("t1", "a"), event("t2", "a")]);
    // Records that were not read yet are left to the next start, so either count is right here.
    bench.stop(running).unwrap();
    let stored = bench.number("SELECT count() FROM usage_events");
    assert_eq!(bench.number("SELECT sum(records) FROM ingest_batches FINAL"), stored);
    bench.config.batch.age = Duration::from_millis(100);
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(
        bench.number("SELECT count() FROM usage_events"),
        2,
        "nothing was stored a second time"
    );
}

#[test]
fn a_log_that_was_created_anew_under_its_old_epoch_is_refused() {
    let mut old = Bench::new();
    old.publish(&(0..50).map(|id| event(format!("t{id}"), "a")).collect::<Vec<_>>());
    let running = old.start();
    old.await_consumed();
    old.stop(running).unwrap();

    let mut new = Bench::new();
    new.store = old.store.clone();
    new.publish(&[event("t1", "a")]);
    let running = new.start();
    let health = running.health.clone();
    let error = new.ended(running).unwrap_err();
    assert!(matches!(error, ConsumerError::LogBehindStore { .. }), "{error:?}");
    assert!(error.to_string().contains("raise its epoch"), "{error}");
    assert!(health.live().is_err());
    assert_eq!(old.billable().len(), 50, "nothing was written");

    // With a new epoch, what the old log held is earlier than everything in the new one.
    new.config.source.epoch = 2;
    let running = new.start();
    wait::until("the record is consumed", || {
        let seen = old
            .reader
            .number("SELECT sum(duplicates) FROM ingest_batches FINAL WHERE topic_epoch = 2")?;
        if seen == 1 { Ok(()) } else { Err(format!("{seen} duplicates")) }
    });
    new.stop(running).unwrap();
    assert_eq!(old.billable().len(), 50);
}

#[test]
fn the_limit_of_the_index_stops_consumption_and_forgets_nothing() {
    let mut bench = Bench::new();
    bench.config.index_bytes_max = 600_000;
    bench.publish(&(0..60_000).map(|id| event(format!("t{id}"), "a")).collect::<Vec<_>>());
    let running = bench.start();
    wait::until("the probe fails", || match running.health.live() {
        Err(reason) if reason.contains("--dedup-memory") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    bench.stop(running).unwrap();
    let stored = bench.number("SELECT count() FROM usage_events");
    assert!(stored < 60_000, "{stored} rows");
    assert_eq!(
        bench.number("SELECT sum(stored) FROM ingest_batches FINAL"),
        stored,
        "what was decided is stored and committed"
    );

    bench.config.index_bytes_max = 100_000_000;
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(
        bench.lines("SELECT count(), uniqExact(transaction_id) FROM usage_events"),
        ["60000 60000"]
    );
}

#[test]
fn an_index_that_cannot_be_rebuilt_within_its_memory_fails_the_probe() {
    let mut bench = Bench::new();
    bench.publish(&(0..60_000).map(|id| event(format!("t{id}"), "a")).collect::<Vec<_>>());
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();

    bench.config.index_bytes_max = 600_000;
    bench.publish(&[event("t1", "a"), event("t60000", "a")]);
    let running = bench.start();
    wait::until("the probe fails", || match running.health.live() {
        Err(reason) if reason.contains("--dedup-memory") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    bench.stop(running).unwrap();
    assert_eq!(bench.number("SELECT sum(records) FROM ingest_batches FINAL"), 60_000);

    bench.config.index_bytes_max = 100_000_000;
    let running = bench.start();
    bench.await_consumed();
    assert_eq!(running.health.live(), Ok(()));
    bench.stop(running).unwrap();
    assert_eq!(bench.billable().len(), 60_001);
}
