//! Whatever a request holds: each event has one outcome, and the log holds exactly the accepted ones.

use crate::api::{event_with, start};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::collections::HashMap;

/// An event of a generated request.
#[derive(Clone, Debug)]
struct Sent {
    id: u8,
    customer: u8,
    fault: Option<&'static str>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let faults = prop::option::weighted(
        0.3,
        prop::sample::select(vec![
            "unknown_metric_code",
            "timestamp_too_old",
            "missing_field",
            "invalid_type",
        ]),
    );
    (0u8..12, 0u8..2, faults).prop_map(|(id, customer, fault)| Sent { id, customer, fault })
}

impl Sent {
    fn to_json(&self, case: usize) -> Value {
        let mut event = event_with(
            &self.transaction_id(case),
            "timestamp",
            crate::api::timestamp(chrono::TimeDelta::zero()).into(),
        );
        // Copies of one event have one timestamp, whenever they are written.
        event["timestamp"] = json!(
            crate::api::now().date_naive().and_time(chrono::NaiveTime::MIN).and_utc().to_rfc3339()
        );
        event["external_customer_id"] = json!(format!("customer-{}", self.customer));
        match self.fault {
            Some("unknown_metric_code") => event["code"] = json!("nothing_billed"),
            Some("timestamp_too_old") => event["timestamp"] = json!("2001-01-01T00:00:00Z"),
            Some("missing_field") => event["code"] = Value::Null,
            Some(_) => event["external_customer_id"] = json!(1),
            None => {}
        }
        event
    }

    fn transaction_id(&self, case: usize) -> String {
        format!("{case}-{}", self.id)
    }
}

/// What must become of each event, worked out without the code under test.
fn expected(events: &[Sent]) -> Vec<(&'static str, Option<&'static str>)> {
    let mut first: HashMap<u8, u8> = HashMap::new();
    let outcome = |event: &Sent| match (event.fault, first.get(&event.id)) {
        (Some(fault), _) => ("rejected", Some(fault)),
        (None, None) => {
            first.insert(event.id, event.customer);
            ("accepted", None)
        }
        (None, Some(customer)) if *customer == event.customer => ("duplicate", None),
        (None, Some(_)) => ("rejected", Some("conflicting_duplicate")),
    };
    events.iter().map(outcome).collect()
}

#[test]
fn accepted_rejected_and_duplicate_events_are_all_that_was_sent() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let api = std::cell::RefCell::new(runtime.block_on(start()));
    let cases = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(sent(), 1..40), |events| {
        let (mut api, case) = (api.borrow_mut(), cases.replace(cases.get() + 1));
        let bodies: Vec<Value> = events.iter().map(|event| event.to_json(case)).collect();
        let answer = runtime.block_on(api.post_events(&bodies));
        let expected = expected(&events);
        let count =
            |status: &str| expected.iter().filter(|(expected, _)| *expected == status).count();
        let (accepted, rejected, duplicates) =
            (count("accepted"), count("rejected"), count("duplicate"));
        prop_assert_eq!(accepted + rejected + duplicates, events.len());
        prop_assert_eq!(answer.status, if accepted > 0 { 200 } else { 422 });
        answer.assert_counts(accepted, rejected, duplicates);
        prop_assert_eq!(answer.outcomes(), expected.clone());
        let mut must: Vec<String> = Vec::new();
        for (index, (event, (status, _))) in events.iter().zip(&expected).enumerate() {
            prop_assert_eq!(
                &answer.body["events"][index]["transaction_id"],
                &json!(event.transaction_id(case))
            );
            if *status == "accepted" {
                must.push(event.transaction_id(case));
            }
        }
        let mut stored = api.new_in_log();
        stored.sort_unstable();
        must.sort_unstable();
        prop_assert_eq!(stored, must);
        Ok(())
    });
    result.unwrap();
    runtime.block_on(api.into_inner().stop()).unwrap();
}
