//! A verdict has to fail for each way in which a store can be wrong.

use super::*;
use crate::event::example_run;
use crate::ledger::Ledger;
use crate::plan::RequestPlan;

/// What a store holds, as the queries return it.
#[derive(Clone, Default)]
struct Store {
    /// Event numbers and the timestamps they are stored with.
    rows: Vec<(u64, i64)>,
    conflicts: Vec<(u64, i64)>,
    /// Added to the sum of the first hour.
    sum_error: i128,
    hours_lost: usize,
}

fn expectation(unanswered: bool) -> Expectation {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
    ledger
        .sent(&RequestPlan {
            number: 0,
            fresh: 1_000..1_200,
            duplicates: vec![],
            restamped: vec![],
        })
        .unwrap();
    ledger.acked(0).unwrap();
    ledger
        .sent(&RequestPlan {
            number: 1,
            fresh: 1_200..1_300,
            duplicates: vec![1_007],
            restamped: vec![1_008],
        })
        .unwrap();
    ledger.acked(1).unwrap();
    ledger
        .sent(&RequestPlan {
            number: 2,
            fresh: 1_300..1_310,
            duplicates: vec![],
            restamped: vec![],
        })
        .unwrap();
    ledger.rejected(2, None).unwrap();
    if unanswered {
        ledger
            .sent(&RequestPlan {
                number: 3,
                fresh: 1_310..1_320,
                duplicates: vec![],
                restamped: vec![],
            })
            .unwrap();
    }
    Expectation::read(ledger.path()).unwrap()
}

fn right_store() -> Store {
    let run = example_run();
    let rows = (1_000..1_300).map(|number| (number, run.facts(number).timestamp_ms)).collect();
    Store { rows, conflicts: vec![(1_008, run.restamped_ms(1_008))], ..Store::default() }
}

fn judge(expectation: &Expectation, store: &Store) -> Verdict {
    let run = &expectation.run;
    let mut checker = Checker::new(expectation);
    let mut hours: BTreeMap<(String, String, i64), (u64, i128, BigInt)> = BTreeMap::new();
    for (number, timestamp_ms) in &store.rows {
        let facts = run.facts(*number);
        let mut value = Vec::new();
        decimal::write(facts.value.unwrap_or(0), &mut value);
        let value = String::from_utf8(value).unwrap();
        let (code, customer) = (&run.metrics[facts.metric].code, run.customer_id(facts.customer));
        checker.event(EventRow {
            organization: "org_demo",
            scope: "",
            transaction_id: &run.transaction_id(*number),
            code,
            customer: &customer,
            timestamp_ms: *timestamp_ms,
            value: facts.value.map(|_| value.as_str()),
        });
        let hour = timestamp_ms.div_euclid(3_600_000) * 3_600;
        let total = hours.entry((code.clone(), customer, hour)).or_default();
        total.0 += 1;
        total.2 += facts.value.unwrap_or(0);
    }
    checker.begin_hours();
    for (i, ((code, customer, hour), (events, _, sum))) in
        hours.iter().enumerate().skip(store.hours_lost)
    {
        let sum = if i == 0 { sum + store.sum_error } else { sum.clone() };
        let text = printed(&sum);
        checker.hour(HourRow { code, customer, hour: *hour, events: *events, sum: &text });
    }
    for (number, timestamp_ms) in &store.conflicts {
        checker.conflict(ConflictRow {
            transaction_id: &run.transaction_id(*number),
            timestamp_ms: *timestamp_ms,
        });
    }
    checker.finish()
}

fn printed(units: &BigInt) -> String {
    let digits = format!("{:0>13}", units.magnitude().to_string());
    let (integer, fraction) = digits.split_at(digits.len() - 12);
    let sign = if units.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    format!("{sign}{integer}.{fraction}")
}

fn problems(store: &Store) -> Vec<Problem> {
    judge(&expectation(false), store).findings.into_keys().collect()
}

#[test]
fn a_right_store_passes() {
    let verdict = judge(&expectation(false), &right_store());
    assert_eq!(verdict, Verdict { rows: 300, findings: BTreeMap::new() });
    assert!(verdict.passed());
}

#[test]
fn a_missing_event_fails() {
    let mut store = right_store();
    store.rows.remove(150);
    let verdict = judge(&expectation(false), &store);
    assert!(!verdict.passed());
    assert_eq!(verdict.findings[&Problem::Missing].examples, ["load-k3fq-0000001150"]);
    assert!(verdict.findings.contains_key(&Problem::WrongTotal), "its hour is wrong too");
}

#[test]
fn an_event_that_was_never_sent_fails() {
    let mut store = right_store();
    store.rows.push((5_000, 0));
    assert_eq!(problems(&store), [Problem::Extra, Problem::WrongTotal]);
}

#[test]
fn a_refused_event_that_is_stored_fails() {
    let mut store = right_store();
    store.rows.push((1_305, example_run().facts(1_305).timestamp_ms));
    assert_eq!(problems(&store), [Problem::Extra, Problem::WrongTotal]);
}

#[test]
fn a_doubled_event_fails() {
    let mut store = right_store();
    store.rows.push(store.rows[7]);
    assert_eq!(problems(&store), [Problem::Doubled, Problem::WrongTotal]);
}

#[test]
fn a_missing_and_a_doubled_event_do_not_cancel_out() {
    let mut store = right_store();
    store.rows[7] = store.rows[8];
    let found = problems(&store);
    assert!(found.contains(&Problem::Missing) && found.contains(&Problem::Doubled), "{found:?}");
}

#[test]
fn the_payload_of_a_later_copy_fails() {
    let mut store = right_store();
    store.rows[8].1 = example_run().restamped_ms(1_008);
    assert_eq!(problems(&store), [Problem::WrongPayload, Problem::WrongTotal]);
}

#[test]
fn a_sum_that_is_off_by_one_in_the_last_digit_fails() {
    for sum_error in [1, -1] {
        assert_eq!(problems(&Store { sum_error, ..right_store() }), [Problem::WrongTotal]);
    }
}

#[test]
fn an_hour_that_is_not_reported_fails() {
    assert_eq!(problems(&Store { hours_lost: 1, ..right_store() }), [Problem::WrongTotal]);
}

#[test]
fn conflicts_have_to_be_exactly_the_copies_that_lie() {
    let run = example_run();
    assert_eq!(problems(&Store { conflicts: vec![], ..right_store() }), [Problem::MissingConflict]);
    let twice = vec![(1_008, run.restamped_ms(1_008)); 2];
    assert_eq!(problems(&Store { conflicts: twice, ..right_store() }), [Problem::ExtraConflict]);
    let mut other = right_store();
    other.conflicts.push((1_007, run.restamped_ms(1_007)));
    assert_eq!(problems(&other), [Problem::ExtraConflict], "a plain duplicate is no conflict");
    let first_payload = vec![(1_008, run.facts(1_008).timestamp_ms)];
    assert_eq!(
        problems(&Store { conflicts: first_payload, ..right_store() }),
        [Problem::MissingConflict, Problem::ExtraConflict]
    );
}

#[test]
fn an_unknown_outcome_allows_a_row_or_none_but_no_pass() {
    let mut store = right_store();
    let none = judge(&expectation(true), &store);
    assert_eq!(none.findings.keys().collect::<Vec<_>>(), [&Problem::Unresolved]);
    store.rows.push((1_312, example_run().facts(1_312).timestamp_ms));
    let one = judge(&expectation(true), &store);
    assert_eq!(one.findings.keys().collect::<Vec<_>>(), [&Problem::Unresolved]);
    store.rows.push((1_312, example_run().facts(1_312).timestamp_ms));
    let two = judge(&expectation(true), &store);
    assert!(two.findings.contains_key(&Problem::Doubled));
}

#[test]
fn rows_of_two_organizations_fail() {
    let expectation = expectation(false);
    let mut checker = Checker::new(&expectation);
    let run = &expectation.run;
    let number = (1_000..1_200).find(|number| run.facts(*number).value.is_none()).unwrap();
    let (id, customer) = (run.transaction_id(number), run.customer_id(run.facts(number).customer));
    let row = EventRow {
        organization: "org_a",
        scope: "",
        transaction_id: &id,
        code: "api_calls",
        customer: &customer,
        timestamp_ms: run.facts(number).timestamp_ms,
        value: None,
    };
    checker.event(row);
    assert!(checker.verdict.passed());
    checker.event(EventRow { organization: "org_b", ..row });
    assert!(checker.verdict.findings.contains_key(&Problem::WrongPayload));
}
