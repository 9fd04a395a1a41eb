//! The contract without faults: what was accepted is billed once, with its first payload.

use crate::scenario::events;
use testkit::event::{Event, now_ms};
use testkit::ledger::Ledger;
use testkit::stack::{Engines, Part, Stack};
use testkit::wait;

fn repeats_and_restamped_repeats_over_a_crash(engines: Engines) {
    let mut stack = Stack::start(engines, &[]);
    let (sender, mut ledger) = (stack.sender(), Ledger::default());
    let first = events("e", 500);
    let restamped: Vec<Event> =
        first.iter().map(|e| Event { timestamp_ms: e.timestamp_ms - 1, ..e.clone() }).collect();
    sender.send(&first, &mut ledger);
    sender.send(&first, &mut ledger);
    stack.crash(Part::IngestApi);
    if engines == Engines::Servers {
        stack.crash(Part::EventConsumer);
    }
    sender.send(&first, &mut ledger);
    sender.send(&restamped, &mut ledger);
    stack.crash(Part::EventConsumer);
    sender.send(&events("f", 10), &mut ledger);
    let reader = stack.reader();
    ledger.await_exactly_once(&reader);
    let conflicts = "SELECT uniqExact(transaction_id) FROM usage_event_conflicts FINAL";
    wait::until("every changed payload is kept beside the bill", || {
        match reader.number(conflicts)? {
            500 => Ok(()),
            found => Err(format!("{found} conflicts")),
        }
    });
    ledger.await_exactly_once(&reader);
}

fn events_sent_before_the_first_consumer_are_billed(engines: Engines) {
    let mut stack = Stack::start(engines, &[("TALLYMARK_SERVICES", "ingest-api")]);
    let mut ledger = Ledger::default();
    stack.sender().send(&events("early", 100), &mut ledger);
    assert!(stack.stop(), "a clean stop: {}", stack.log_tail());
    stack.start_again(&[("TALLYMARK_SERVICES", "ingest-api,event-consumer")]);
    ledger.await_exactly_once(&stack.reader());
}

fn an_event_two_hours_ahead_is_refused_or_billed_but_never_lost(engines: Engines) {
    let mut stack = Stack::start(engines, &[]);
    let ahead = Event::api_call("ahead", now_ms() + 2 * 3_600_000);
    let refused = stack.sender().post(std::slice::from_ref(&ahead)).expect("an answer");
    assert_eq!(refused.status(), 422);
    assert!(refused.text().expect("a body").contains("timestamp_in_future"));
    stack.start_again(&[("TALLYMARK_MAX_TIMESTAMP_AHEAD", "3h")]);
    let mut ledger = Ledger::default();
    stack.sender().send(&[ahead], &mut ledger);
    ledger.await_exactly_once(&stack.reader());
}

fn data_survives_a_clean_stop_and_people_can_only_read(engines: Engines) {
    let mut stack = Stack::start(engines, &[]);
    let (key, mut ledger) = (stack.fact("TALLYMARK_API_KEY"), Ledger::default());
    stack.sender().send(&events("kept", 20), &mut ledger);
    ledger.await_exactly_once(&stack.reader());
    assert!(stack.stop(), "Ctrl-C ends it with success: {}", stack.log_tail());
    stack.start_again(&[]);
    assert_eq!(stack.fact("TALLYMARK_API_KEY"), key);
    let reader = stack.reader();
    ledger.await_exactly_once(&reader);
    for statement in [
        "INSERT INTO usage_events (organization_id) VALUES ('x')",
        "DROP TABLE usage_events",
        "TRUNCATE TABLE usage_events",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    ] {
        assert!(reader.query(statement).is_err(), "the read-only user may not: {statement}");
    }
    let hours = reader
        .number("SELECT toUInt64(sum(events)) FROM usage_by_hour")
        .expect("the hourly view answers");
    assert_eq!(hours, 20);
}

macro_rules! on_both_engines {
    ($($scenario:ident),* $(,)?) => {
        mod on_embedded_engines {
            $(#[test] fn $scenario() { super::$scenario(testkit::stack::Engines::Embedded); })*
        }
        mod on_servers {
            $(#[test] fn $scenario() {
                if testkit::stack::Engines::Servers.available() {
                    super::$scenario(testkit::stack::Engines::Servers);
                }
            })*
        }
    };
}
pub(crate) use on_both_engines;

on_both_engines!(
    repeats_and_restamped_repeats_over_a_crash,
    events_sent_before_the_first_consumer_are_billed,
    an_event_two_hours_ahead_is_refused_or_billed_but_never_lost,
    data_survives_a_clean_stop_and_people_can_only_read,
);
