//! ClickHouse goes away, answers errors or loses answers; the consumer works again by itself.

use crate::bench::{Bench, event, own_engine, shared_engine};
use metering::UsageEvent;
use std::time::Duration;
use testkit::proxy::{Fault, Proxy};
use testkit::wait;

fn events(range: std::ops::Range<u32>) -> Vec<UsageEvent<'static>> {
    range.map(|id| event(format!("t{id:06}"), "a")).collect()
}

#[test]
fn a_killed_engine_costs_nothing() {
    let engine = own_engine();
    let mut bench = Bench::behind(&engine, engine.address());
    // The outage is longer than a full batch waits before the partitions are paused.
    bench.config.pause_after = Duration::from_millis(100);
    bench.config.stall_timeout = Duration::from_secs(1);
    bench.config.batch.rows = 500;
    bench.publish(&events(0..2_000));
    let running = bench.start();
    bench.await_consumed();
    engine.kill().unwrap();
    for chunk in 0..5 {
        bench.publish(&events(2_000 + chunk * 1_000..3_000 + chunk * 1_000));
        bench.publish(&events(0..500));
    }
    wait::until("the probe fails", || match running.health.live() {
        Err(reason) if reason.contains("nothing was committed") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    engine.start_again().unwrap();
    bench.await_consumed();
    wait::until("the probe is well again", || running.health.live());
    bench.stop(running).unwrap();
    let expected: Vec<_> = (0..7_000).map(|id| format!("t{id:06} a")).collect();
    assert_eq!(bench.billable(), expected);
}

#[test]
fn lost_answers_and_cut_connections_double_nothing() {
    let engine = shared_engine();
    let proxy = Proxy::start(engine.address()).unwrap();
    let mut bench = Bench::behind(engine, proxy.address());
    bench.store.insert_timeout = Duration::from_millis(300);
    bench.config.batch.rows = 100;
    let running = bench.start();
    wait::until("the consumer is ready", || running.health.ready());
    for (round, fault) in (0..).zip([
        Fault::HoldInsertAnswers,
        Fault::Cut,
        Fault::BlackHole,
        Fault::HoldInsertAnswers,
    ]) {
        let stored = bench.number("SELECT count() FROM usage_events");
        proxy.set(fault);
        bench.publish(&events(round * 500..round * 500 + 500));
        if fault == Fault::HoldInsertAnswers {
            // A batch lands although its answer never comes.
            wait::until("a batch lands", || {
                let now = bench.reader.number("SELECT count() FROM usage_events")?;
                if now > stored { Ok(()) } else { Err(format!("{now} rows")) }
            });
        }
        proxy.set(Fault::None);
        bench.await_consumed();
    }
    bench.stop(running).unwrap();
    assert_eq!(bench.billable(), (0..2_000).map(|id| format!("t{id:06} a")).collect::<Vec<_>>());
}

#[test]
fn an_engine_that_answers_errors_is_asked_again_until_somebody_helps() {
    let mut bench = Bench::new();
    bench.config.stall_timeout = Duration::from_secs(1);
    bench.publish(&events(0..10));
    let running = bench.start();
    bench.await_consumed();
    bench.reader.query("RENAME TABLE usage_events TO hidden").unwrap();
    bench.publish(&events(10..20));
    wait::until("the probe fails", || match running.health.live() {
        Err(reason) if reason.contains("nothing was committed") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    bench.reader.query("RENAME TABLE hidden TO usage_events").unwrap();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable().len(), 20);
}

#[test]
fn the_consumer_starts_before_the_engine_and_ends_without_it() {
    let engine = own_engine();
    let mut bench = Bench::behind(&engine, engine.address());
    bench.config.drain_timeout = Duration::from_millis(200);
    bench.publish(&events(0..100));
    engine.kill().unwrap();
    let running = bench.start();
    assert!(running.health.live().is_ok() && running.health.ready().is_err());
    bench.stop(running).expect("there is nothing to finish");

    engine.start_again().unwrap();
    let running = bench.start();
    bench.await_consumed();
    engine.kill().unwrap();
    bench.publish(&events(100..200));
    wait::until("the records are read", || running.health.ready());
    bench.stop(running).expect("it ends in its time, without the last batch");

    let running = bench.start();
    engine.start_again().unwrap();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable().len(), 200);
}
