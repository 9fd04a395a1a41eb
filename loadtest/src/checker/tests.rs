//! A verdict has to fail for each way in which a store can be wrong, and for none in which it is right.

use super::*;
use crate::event::example_run;
use crate::ledger::Ledger;
use crate::plan::RequestPlan;
use num_bigint::Sign;
use proptest::prelude::*;

/// What a store holds, as the queries return it.
#[derive(Clone, Default)]
struct Store {
    rows: Vec<Row>,
    conflicts: Vec<Row>,
    /// Added to the sum of the first total of a period.
    sum_error: Option<(Period, i128)>,
    totals_lost: Option<Period>,
    /// The store adds up the hashes of other rows than it shows.
    other_hash: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    organization: String,
    scope: String,
    transaction_id: String,
    code: String,
    customer: String,
    subscription: String,
    timestamp_ms: i64,
    value: Option<i128>,
    properties: String,
}

const TERMS: Terms = Terms { drained: true, log_may_duplicate: false, refusals_allowed: false };

/// Two organizations, with edge cases.
fn run() -> Run {
    let organizations = vec!["org_a".to_owned(), "org_b".to_owned()];
    Run { organizations, edge_cases: 2_000, ..example_run() }
}

fn id(number: u64) -> EventId {
    EventId { organization: 0, number }
}

fn plan(number: u64, fresh: std::ops::Range<u64>) -> RequestPlan {
    RequestPlan {
        number,
        organization: 0,
        fresh,
        duplicates: vec![],
        changed: vec![],
        invalid: 0..0,
    }
}

/// 1,000 to 1,299 of the first organization are accepted and 1,000 to 1,049 of the second; 1,300 to
/// 1,309 are refused.
fn ledger(more: &[(RequestPlan, &[&str])]) -> Expectation {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(directory.path(), &run()).unwrap();
    let first = plan(0, 1_000..1_200);
    let second = RequestPlan {
        duplicates: vec![1_007],
        changed: vec![1_008],
        invalid: 0..2,
        ..plan(1, 1_200..1_300)
    };
    let other = RequestPlan { organization: 1, ..plan(2, 1_000..1_050) };
    for plan in [&first, &second, &other, &plan(3, 1_300..1_310)] {
        ledger.sent(plan).unwrap();
    }
    ledger.acked(0).unwrap();
    ledger.rejected(1, Some(&[102, 103])).unwrap();
    ledger.acked(2).unwrap();
    ledger.rejected(3, None).unwrap();
    for (plan, outcomes) in more {
        ledger.sent(plan).unwrap();
        for outcome in *outcomes {
            match *outcome {
                "acked" => ledger.acked(plan.number).unwrap(),
                "retried" => ledger.retried(plan.number).unwrap(),
                _ => ledger.unknown(plan.number, outcome).unwrap(),
            }
        }
    }
    Expectation::read(ledger.path()).unwrap()
}

fn row(id: EventId, facts: &Facts) -> Row {
    let run = run();
    let (scope, transaction_id) = run.identity(id);
    let mut properties = Vec::new();
    facts.write_properties(&run, &mut properties);
    Row {
        organization: run.organizations[usize::from(id.organization)].clone(),
        scope,
        transaction_id,
        code: run.metrics[facts.metric].code.clone(),
        customer: run.customer_id(facts.customer),
        subscription: run.subscription_id(facts.customer, facts.subscription),
        timestamp_ms: facts.timestamp_ms,
        value: facts.value,
        properties: String::from_utf8(properties).unwrap(),
    }
}

fn first_copy(id: EventId) -> Row {
    row(id, &run().facts(id))
}

fn changed_copy(number: u64) -> Row {
    row(id(number), &run().changed(id(number)))
}

fn right_store() -> Store {
    let other = (1_000..1_050).map(|number| EventId { organization: 1, number });
    let rows = (1_000..1_300).map(id).chain(other).map(first_copy).collect();
    Store { rows, conflicts: vec![changed_copy(1_008)], ..Store::default() }
}

impl Row {
    fn with<T>(&self, each: impl FnOnce(EventRow<'_>) -> T) -> T {
        let value = self.value.map(|units| {
            let mut text = Vec::new();
            decimal::write(units, &mut text);
            String::from_utf8(text).unwrap()
        });
        each(EventRow {
            organization: &self.organization,
            scope: &self.scope,
            transaction_id: &self.transaction_id,
            code: &self.code,
            customer: &self.customer,
            subscription: &self.subscription,
            timestamp_ms: self.timestamp_ms,
            value: value.as_deref(),
            properties: Cow::Borrowed(&self.properties),
        })
    }

    /// The text that the query for set hashes makes of a row.
    fn hashed(&self) -> String {
        let timestamp = self.timestamp_ms.to_string();
        let value = self.with(|row| row.value.unwrap_or("null").to_owned());
        let parts = [
            &self.organization,
            &self.scope,
            &self.transaction_id,
            &self.customer,
            &self.subscription,
            &self.code,
            &timestamp,
            &value,
            &self.properties,
        ];
        parts.iter().map(|part| format!("{}:{part}", part.len())).collect()
    }
}

fn judge_on(terms: Terms, expectation: &Expectation, store: &Store) -> Verdict {
    let mut checker = Checker::new(expectation, terms);
    store.rows.iter().for_each(|row| row.with(|row| checker.event(row)));
    checker.end_events();
    for period in Period::ALL {
        add_totals(&mut checker, store, period);
    }
    let mut hashes: BTreeMap<&str, SetHash> = BTreeMap::new();
    for row in store.rows.iter().skip(usize::from(store.other_hash)) {
        hashes.entry(&row.organization).or_default().add(row.hashed().as_bytes());
    }
    let texts: Vec<_> = hashes.iter().map(|(o, hash)| (o, hash.rows, hash.to_string())).collect();
    let rows: Vec<_> = texts
        .iter()
        .map(|(organization, rows, hash)| SetHashRow { organization, rows: *rows, hash })
        .collect();
    checker.set_hashes(&rows);
    store.conflicts.iter().for_each(|row| row.with(|row| checker.conflict(row)));
    checker.finish()
}

/// Organization, metric, customer, subscription, start.
type Group<'a> = (&'a str, &'a str, &'a str, &'a str, i64);

fn add_totals(checker: &mut Checker<'_>, store: &Store, period: Period) {
    let mut totals = checker.totals(period);
    let mut found: BTreeMap<Group<'_>, (u64, BigInt)> = BTreeMap::new();
    for row in &store.rows {
        let (unit, offset) =
            if period == Period::KolkataDay { (86_400, 19_800) } else { (3_600, 0) };
        let seconds = row.timestamp_ms.div_euclid(1_000) + offset;
        let start = seconds.div_euclid(unit) * unit - offset;
        let subscription = if period == Period::ViewHour { row.subscription.as_str() } else { "" };
        let key = (&*row.organization, &*row.code, &*row.customer, subscription, start);
        let (events, sum) = found.entry(key).or_default();
        *events += 1;
        *sum += row.value.unwrap_or(0);
    }
    let lost = usize::from(store.totals_lost == Some(period));
    for (i, ((organization, code, customer, subscription, start), (events, sum))) in
        found.into_iter().enumerate().skip(lost)
    {
        let error = store.sum_error.filter(|(p, _)| i == 0 && *p == period);
        let sum = printed(&(sum + error.map_or(0, |(_, error)| error)));
        let row = TotalRow { organization, code, customer, subscription, start, events, sum: &sum };
        checker.total(&mut totals, row);
    }
    checker.end_totals(&totals);
}

fn printed(units: &BigInt) -> String {
    let digits = format!("{:0>13}", units.magnitude().to_string());
    let (integer, fraction) = digits.split_at(digits.len() - 12);
    let sign = if units.sign() == Sign::Minus { "-" } else { "" };
    format!("{sign}{integer}.{fraction}")
}

fn judge(expectation: &Expectation, store: &Store) -> Verdict {
    let terms = Terms { refusals_allowed: true, ..TERMS };
    judge_on(terms, expectation, store)
}

fn problems(store: &Store) -> Vec<Problem> {
    judge(&ledger(&[]), store).findings.into_keys().collect()
}

/// Wrong rows make wrong totals and another set hash too.
fn with_totals(problem: Problem) -> Vec<Problem> {
    let mut problems = vec![problem, Problem::WrongTotal, Problem::WrongSetHash];
    problems.sort_unstable();
    problems
}

#[test]
fn a_right_store_passes() {
    let verdict = judge(&ledger(&[]), &right_store());
    assert_eq!(verdict.findings, BTreeMap::new());
    assert!(verdict.passed());
    assert_eq!((verdict.store.rows, verdict.store.conflicts), (350, 1));
    assert_eq!(verdict.store.set_hashes.len(), 2);
}

#[test]
fn a_missing_event_fails() {
    let mut store = right_store();
    let lost = store.rows.remove(150);
    let verdict = judge(&ledger(&[]), &store);
    let missing = &verdict.findings[&Problem::Missing];
    assert_eq!(missing.count, 1);
    assert!(missing.examples[0].starts_with(&lost.transaction_id), "{missing:?}");
    assert_eq!(verdict.findings.into_keys().collect::<Vec<_>>(), with_totals(Problem::Missing));
}

#[test]
fn what_is_not_visible_yet_is_no_loss() {
    let mut store = right_store();
    store.rows.remove(150);
    store.conflicts.clear();
    let behind = Terms { drained: false, refusals_allowed: true, ..TERMS };
    let verdict = judge_on(behind, &ledger(&[]), &store);
    assert_eq!(verdict.findings.keys().collect::<Vec<_>>(), [&Problem::NotCaughtUp]);
    assert_eq!(verdict.findings[&Problem::NotCaughtUp].count, 2);
    store.rows.push(store.rows[0].clone());
    let verdict = judge_on(behind, &ledger(&[]), &store);
    assert!(verdict.findings.contains_key(&Problem::Doubled), "what is wrong already stays wrong");
}

#[test]
fn an_event_that_was_never_sent_fails() {
    for number in [5_000, 2] {
        let mut store = right_store();
        store.rows.push(first_copy(id(number)));
        assert_eq!(problems(&store), with_totals(Problem::Extra), "{number}");
    }
    let mut store = right_store();
    store.rows.push(Row { organization: "org_c".to_owned(), ..first_copy(id(1_000)) });
    assert_eq!(problems(&store), with_totals(Problem::Extra));
}

#[test]
fn an_event_in_the_wrong_organization_or_scope_fails() {
    let mut store = right_store();
    store.rows[7].organization = "org_b".to_owned();
    let found = problems(&store);
    assert!(found.contains(&Problem::Missing), "{found:?}");
    let mut store = right_store();
    let scoped = store.rows.iter_mut().find(|row| !row.scope.is_empty()).unwrap();
    scoped.scope.clear();
    let found = problems(&store);
    assert!(found.contains(&Problem::Missing) && found.contains(&Problem::Extra), "{found:?}");
}

#[test]
fn a_refused_event_that_is_stored_fails() {
    let mut store = right_store();
    store.rows.push(first_copy(id(1_305)));
    assert_eq!(problems(&store), with_totals(Problem::RejectedStored));
    let mut store = right_store();
    let transaction_id = run().invalid_id(1);
    store.rows.push(Row { transaction_id, scope: "s".repeat(256), ..first_copy(id(1_000)) });
    assert_eq!(problems(&store), with_totals(Problem::RejectedStored));
}

#[test]
fn valid_events_that_are_refused_fail_unless_that_is_allowed() {
    let verdict = judge_on(TERMS, &ledger(&[]), &right_store());
    assert_eq!(verdict.findings.keys().collect::<Vec<_>>(), [&Problem::Refused]);
    assert_eq!(verdict.findings[&Problem::Refused].count, 10);
}

#[test]
fn invalid_events_that_are_accepted_fail() {
    let invalid = RequestPlan { invalid: 2..3, ..plan(4, 1_310..1_311) };
    let mut store = right_store();
    store.rows.push(first_copy(id(1_310)));
    let verdict = judge(&ledger(&[(invalid, &["acked"])]), &store);
    assert_eq!(verdict.findings.keys().collect::<Vec<_>>(), [&Problem::WrongAnswer]);
}

#[test]
fn a_doubled_event_fails() {
    let mut store = right_store();
    store.rows.push(store.rows[7].clone());
    assert_eq!(problems(&store), with_totals(Problem::Doubled));
}

#[test]
fn a_missing_and_a_doubled_event_do_not_cancel_out() {
    let mut store = right_store();
    store.rows[7] = store.rows[8].clone();
    let found = problems(&store);
    assert!(found.contains(&Problem::Missing) && found.contains(&Problem::Doubled), "{found:?}");
}

#[test]
fn the_payload_of_a_later_copy_fails() {
    let mut store = right_store();
    store.rows[8] = changed_copy(1_008);
    assert_eq!(problems(&store), with_totals(Problem::WrongPayload));
    let mut store = right_store();
    let counted = store.rows.iter_mut().find(|row| row.value.is_none()).unwrap();
    counted.value = Some(0);
    let found = problems(&store);
    assert_eq!(found, [Problem::WrongPayload, Problem::WrongSetHash], "null is not zero");
}

#[test]
fn the_properties_of_another_event_fail() {
    let mut store = right_store();
    let texts = [8, 9].map(|i| store.rows[i].properties.clone());
    assert_ne!(texts[0], texts[1]);
    [store.rows[9].properties, store.rows[8].properties] = texts;
    let verdict = judge(&ledger(&[]), &store);
    assert_eq!(verdict.findings[&Problem::WrongPayload].count, 2);
    let found: Vec<Problem> = verdict.findings.into_keys().collect();
    assert_eq!(found, [Problem::WrongPayload, Problem::WrongSetHash], "the totals are right");
    let mut store = right_store();
    store.rows[8].properties.insert(1, ' ');
    assert_eq!(problems(&store), [Problem::WrongPayload, Problem::WrongSetHash], "equal JSON");
    let mut store = right_store();
    store.conflicts[0].properties = store.rows[9].properties.clone();
    assert_eq!(problems(&store), [Problem::MissingConflict, Problem::ExtraConflict]);
}

#[test]
fn another_subscription_or_none_fails() {
    let first = right_store().rows.iter().position(|row| row.subscription.ends_with("-s0"));
    let first = first.unwrap();
    let other = right_store().rows[first].subscription.replace("-s0", "-s1");
    for subscription in ["", "other", &other] {
        let mut store = right_store();
        subscription.clone_into(&mut store.rows[first].subscription);
        assert_eq!(problems(&store), with_totals(Problem::WrongPayload), "{subscription}");
    }
}

#[test]
fn a_sum_that_is_off_by_one_in_the_last_digit_fails() {
    for period in Period::ALL {
        for error in [1, -1] {
            let store = Store { sum_error: Some((period, error)), ..right_store() };
            assert_eq!(problems(&store), [Problem::WrongTotal], "{period:?}");
        }
    }
}

#[test]
fn a_period_that_is_not_reported_fails() {
    for period in Period::ALL {
        let store = Store { totals_lost: Some(period), ..right_store() };
        assert_eq!(problems(&store), [Problem::WrongTotal], "{period:?}");
    }
}

#[test]
fn another_set_hash_fails() {
    assert_eq!(problems(&Store { other_hash: true, ..right_store() }), [Problem::WrongSetHash]);
}

#[test]
fn conflicts_have_to_be_exactly_the_copies_that_lie() {
    assert_eq!(problems(&Store { conflicts: vec![], ..right_store() }), [Problem::MissingConflict]);
    let twice = vec![changed_copy(1_008); 2];
    let twice = Store { conflicts: twice, ..right_store() };
    assert_eq!(problems(&twice), [Problem::ExtraConflict]);
    let lenient = Terms { log_may_duplicate: true, refusals_allowed: true, ..TERMS };
    assert!(judge_on(lenient, &ledger(&[]), &twice).passed());
    let mut other = right_store();
    other.conflicts.push(changed_copy(1_007));
    assert_eq!(problems(&other), [Problem::ExtraConflict], "a plain duplicate is no conflict");
    let first_payload = Store { conflicts: vec![first_copy(id(1_008))], ..right_store() };
    assert_eq!(problems(&first_payload), [Problem::MissingConflict, Problem::ExtraConflict]);
}

#[test]
fn an_unknown_outcome_allows_a_row_or_none_but_no_pass() {
    let unanswered = ledger(&[(plan(4, 1_310..1_320), &["timeout"])]);
    let mut store = right_store();
    let none = judge(&unanswered, &store);
    assert_eq!(none.findings.keys().collect::<Vec<_>>(), [&Problem::Unresolved]);
    store.rows.push(first_copy(id(1_312)));
    let one = judge(&unanswered, &store);
    assert_eq!(one.findings.keys().collect::<Vec<_>>(), [&Problem::Unresolved]);
    store.rows.push(first_copy(id(1_312)));
    let two = judge(&unanswered, &store);
    assert!(two.findings.contains_key(&Problem::Doubled));
}

#[test]
fn the_only_organization_may_be_unknown_but_not_two() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
    ledger.sent(&plan(0, 1_000..1_002)).unwrap();
    ledger.acked(0).unwrap();
    let expectation = Expectation::read(ledger.path()).unwrap();
    let mut checker = Checker::new(&expectation, TERMS);
    let plain = |number| {
        let run = &expectation.run;
        let facts = run.facts(id(number));
        let (_, transaction_id) = run.identity(id(number));
        let code = run.metrics[facts.metric].code.clone();
        Row { transaction_id, code, ..row(id(number), &facts) }
    };
    let (first, second) = (plain(1_000), plain(1_001));
    Row { organization: "org_x".to_owned(), ..first }.with(|row| checker.event(row));
    assert!(checker.verdict.passed(), "{:?}", checker.verdict);
    Row { organization: "org_y".to_owned(), ..second }.with(|row| checker.event(row));
    assert!(checker.verdict.findings.contains_key(&Problem::Extra));
}

/// Outcomes of a request, and what the log then holds of it.
#[derive(Clone, Debug)]
struct Attempted {
    fresh: u64,
    changed: bool,
    /// Of each unanswered attempt: whether its records reached the log.
    unanswered: Vec<bool>,
}

fn attempted() -> impl Strategy<Value = Attempted> {
    (1..20_u64, any::<bool>(), prop::collection::vec(any::<bool>(), 0..4))
        .prop_map(|(fresh, changed, unanswered)| Attempted { fresh, changed, unanswered })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A store that holds the first copy of everything and a conflict for each changed copy that reached
    /// the log is right, in any order, whatever was unanswered on the way.
    #[test]
    fn a_correct_store_raises_no_finding(requests in prop::collection::vec(attempted(), 1..20), turn in 0..500_usize) {
        let mut store = right_store();
        let mut planned = Vec::new();
        let mut next = 1_310;
        for (number, request) in (4..).zip(&requests) {
            let fresh = next..next + request.fresh;
            next = fresh.end;
            store.rows.extend(fresh.clone().map(id).map(first_copy));
            let changed = if request.changed { vec![1_020 + number] } else { vec![] };
            let reached = 1 + request.unanswered.iter().filter(|reached| **reached).count();
            for number in &changed {
                store.conflicts.extend(std::iter::repeat_n(changed_copy(*number), reached));
            }
            let mut outcomes = Vec::new();
            request.unanswered.iter().for_each(|_| outcomes.extend(["timeout", "retried"]));
            outcomes.push("acked");
            planned.push((RequestPlan { changed, ..plan(number, fresh) }, outcomes));
        }
        let planned: Vec<(RequestPlan, &[&str])> =
            planned.iter().map(|(plan, outcomes)| (plan.clone(), outcomes.as_slice())).collect();
        let expectation = ledger(&planned);
        let (rows, conflicts) = (store.rows.len(), store.conflicts.len());
        store.rows.rotate_left(turn % rows);
        store.conflicts.rotate_left(turn % conflicts);
        let verdict = judge(&expectation, &store);
        prop_assert!(verdict.passed(), "{:?}", verdict.findings);
    }
}
