//! The faults that cost OpenMeter events or doubled them when it was measured: nothing missing,
//! nothing extra, and the pipeline works again by itself.

use crate::contract::on_both_engines;
use crate::scenario::{Load, events};
use local_engines::clickhouse::EmbeddedClickHouse;
use std::time::{Duration, Instant};
use testkit::event::Event;
use testkit::ledger::Ledger;
use testkit::proxy::{Fault, Proxy};
use testkit::sql::Reader;
use testkit::stack::{Engines, Part, Stack, binary};
use testkit::wait;

fn the_api_is_killed_under_load(engines: Engines) {
    let mut stack = Stack::start(engines, &[]);
    let load = Load::start(&stack.sender(), 3);
    for _ in 0..5 {
        let rows = || stack.reader().number("SELECT count() FROM usage_events");
        let before = wait::until("the store answers", rows);
        wait::until("some events flow", || match rows()? {
            now if now > before => Ok(()),
            now => Err(format!("still {now} rows")),
        });
        stack.crash(Part::IngestApi);
    }
    load.finish().await_exactly_once(&stack.reader());
}

/// A stack whose consumer reaches ClickHouse through a proxy, and a reader that goes around it.
fn behind_a_proxy(engines: Engines) -> (EmbeddedClickHouse, Proxy, Stack, Reader) {
    let engine = EmbeddedClickHouse::start_for_tests(&binary("embedded-clickhouse"))
        .expect("the engine starts");
    let proxy = Proxy::start(engine.address()).expect("the proxy starts");
    let url = format!("http://{}", proxy.address());
    let environment = [
        ("CLICKHOUSE_URL", url.as_str()),
        ("CLICKHOUSE_USER", engine.service_user()),
        ("CLICKHOUSE_PASSWORD", engine.service_password()),
        ("CLICKHOUSE_READER_USER", engine.reader_user()),
        ("CLICKHOUSE_READER_PASSWORD", engine.reader_password()),
    ];
    let stack = Stack::start(engines, &environment);
    let reader = format!(
        "http://{}:{}@{}/?database=tallymark",
        engine.reader_user(),
        engine.reader_password(),
        engine.address()
    );
    let reader = Reader::new(reader);
    wait::until("the schema is there", || reader.query("SELECT count() FROM billable_events"));
    (engine, proxy, stack, reader)
}

fn the_consumer_is_killed_between_insert_and_commit(engines: Engines) {
    let (_engine, proxy, mut stack, reader) = behind_a_proxy(engines);
    let mut ledger = Ledger::default();
    for round in 0..3 {
        // Once these are billed every partition is being read, so the next ones make one batch.
        stack.sender().send(&events(&format!("before-{round}"), 300), &mut ledger);
        ledger.await_exactly_once(&reader);
        // The insert goes through and its answer does not, so the commit cannot have happened.
        proxy.set(Fault::HoldInsertAnswers);
        stack.sender().send(&events(&format!("held-{round}"), 300), &mut ledger);
        ledger.await_exactly_once(&reader);
        stack.crash_and(Part::EventConsumer, || {
            proxy.set(Fault::Cut);
            proxy.set(Fault::None);
        });
    }
    stack.sender().send(&events("after", 100), &mut ledger);
    ledger.await_exactly_once(&reader);
}

fn an_answer_is_lost_after_the_insert(engines: Engines) {
    let (_engine, proxy, stack, reader) = behind_a_proxy(engines);
    let mut ledger = Ledger::default();
    stack.sender().send(&events("before", 100), &mut ledger);
    ledger.await_exactly_once(&reader);
    for round in 0..3 {
        proxy.set(Fault::HoldInsertAnswers);
        stack.sender().send(&events(&format!("lost-{round}"), 200), &mut ledger);
        ledger.await_exactly_once(&reader);
        proxy.set(Fault::Cut);
        proxy.set(Fault::None);
        stack.sender().send(&events(&format!("next-{round}"), 50), &mut ledger);
        ledger.await_exactly_once(&reader);
    }
}

/// Refusals before the rows are stored, then after, then none.
fn the_store_answers_inserts_with_exceptions(engines: Engines) {
    let (_engine, proxy, stack, reader) = behind_a_proxy(engines);
    let mut ledger = Ledger::default();
    stack.sender().send(&events("before", 100), &mut ledger);
    ledger.await_exactly_once(&reader);
    for (round, code) in [241, 252, 319].into_iter().enumerate() {
        for fault in [Fault::AnswerInsertsWith(code), Fault::FailAfterInsert(code)] {
            proxy.set(fault);
            let hits = proxy.counts().hits;
            stack.sender().send(&events(&format!("{round}-{fault:?}"), 100), &mut ledger);
            wait::until("inserts are refused", || match proxy.counts().hits - hits {
                2.. => Ok(()),
                refused => Err(format!("{refused} were")),
            });
        }
        proxy.set(Fault::None);
        ledger.await_exactly_once(&reader);
    }
}

fn the_broker_is_away_for_16_seconds() {
    let mut stack = Stack::start(Engines::Servers, &[("TALLYMARK_RESTART_DELAY", "16s")]);
    let load = Load::start(&stack.sender(), 2);
    let mut ledger = Ledger::default();
    stack.sender().send(&events("before", 100), &mut ledger);
    stack.crash(Part::Kafka);
    stack.sender().send(&events("after", 100), &mut ledger);
    ledger.merge(load.finish());
    ledger.await_exactly_once(&stack.reader());
}

/// What was not confirmed before both died is sent again, and what was confirmed is there.
fn the_api_is_killed_during_a_broker_outage() {
    let mut stack = Stack::start(Engines::Servers, &[("TALLYMARK_RESTART_DELAY", "3s")]);
    let load = Load::start(&stack.sender(), 2);
    let mut ledger = Ledger::default();
    stack.sender().send(&events("before", 100), &mut ledger);
    let broker = stack.kill(Part::Kafka);
    stack.kill(Part::IngestApi);
    wait::until("the broker runs again", || match stack.pid(Part::Kafka) {
        Some(pid) if pid != broker => Ok(()),
        _ => Err("not yet".to_owned()),
    });
    stack.await_ready();
    stack.sender().send(&events("after", 100), &mut ledger);
    ledger.merge(load.finish());
    ledger.await_exactly_once(&stack.reader());
}

/// The API answers while the engine is down, and what it accepted is billed afterwards.
fn the_engine_is_away_for_20_seconds(engines: Engines) {
    let mut stack = Stack::start(engines, &[("TALLYMARK_RESTART_DELAY", "20s")]);
    let (sender, mut ledger) = (stack.sender(), Ledger::default());
    sender.send(&events("before", 100), &mut ledger);
    let killed = stack.kill(Part::ClickHouse);
    for batch in 0..20 {
        sender.send(&events(&format!("during-{batch}"), 100), &mut ledger);
    }
    assert!(
        stack.reader().query("SELECT 1").is_err(),
        "the engine was down while those were accepted"
    );
    wait::until("the engine runs again", || match stack.pid(Part::ClickHouse) {
        Some(pid) if pid != killed => Ok(()),
        _ => Err("not yet".to_owned()),
    });
    stack.await_ready();
    ledger.await_exactly_once(&stack.reader());
}

/// Keys that the API has seen keep working while the configuration cannot be reached.
fn postgres_is_away_while_events_arrive() {
    let stack = Stack::start(Engines::Servers, &[("TALLYMARK_RESTART_DELAY", "8s")]);
    let (sender, mut ledger) = (stack.sender(), Ledger::default());
    sender.send(&events("before", 10), &mut ledger);
    let killed = stack.kill(Part::Postgres);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        let batch: Vec<Event> = events(&format!("during-{}", ledger.len()), 10);
        let answer = sender.post(&batch).expect("an answer");
        assert_eq!(answer.status(), 200, "a known key works without Postgres");
        batch.iter().for_each(|event| ledger.accept(event));
    }
    wait::until("Postgres runs again", || match stack.pid(Part::Postgres) {
        Some(pid) if pid != killed => Ok(()),
        _ => Err("not yet".to_owned()),
    });
    ledger.await_exactly_once(&stack.reader());
}

on_both_engines!(
    the_api_is_killed_under_load,
    the_consumer_is_killed_between_insert_and_commit,
    an_answer_is_lost_after_the_insert,
    the_store_answers_inserts_with_exceptions,
    the_engine_is_away_for_20_seconds,
);

mod on_servers_only {
    use testkit::stack::Engines;

    #[test]
    fn the_broker_is_away_for_16_seconds() {
        if Engines::Servers.available() {
            super::the_broker_is_away_for_16_seconds();
        }
    }

    #[test]
    fn the_api_is_killed_during_a_broker_outage() {
        if Engines::Servers.available() {
            super::the_api_is_killed_during_a_broker_outage();
        }
    }

    #[test]
    fn postgres_is_away_while_events_arrive() {
        if Engines::Servers.available() {
            super::postgres_is_away_while_events_arrive();
        }
    }
}
