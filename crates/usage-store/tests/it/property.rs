//! The oracle: whatever is replayed, in whatever order and batches, merged or not, the view's
//! totals are those of the distinct events in big integers.

use crate::engine::{Database, shared};
use crate::events::{event, position, push};
use metering::{Quantity, UsageEvent};
use num_bigint::BigInt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::borrow::Cow;
use std::collections::BTreeMap;
use usage_store::{EventRows, InsertToken};

/// The log of a case has this many records.
const RECORDS: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    /// Insert these records, in this order, in one batch.
    Insert(Vec<usize>),
    /// Send the last insert again under the same token.
    Retry,
    Merge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = prop::collection::vec(0..RECORDS, 1..30);
    let step = prop_oneof![6 => records.prop_map(Step::Insert), 2 => Just(Step::Retry), 1 => Just(Step::Merge)];
    prop::collection::vec(step, 1..12)
}

/// What a record says: id, minute, value in units. Records of one id and minute are copies under one
/// sort key, of which the first in the log counts.
fn records() -> impl Strategy<Value = Vec<(u8, i64, Option<i128>)>> {
    const LIMIT: i128 = 10_i128.pow(38);
    let value = prop_oneof![
        Just(None),
        (-LIMIT + 1..LIMIT).prop_map(Some),
        Just(Some(LIMIT - 1)),
        Just(Some(1 - LIMIT)),
        (-1000_i128..1000).prop_map(Some),
    ];
    // Each id has one timestamp, up to three months away.
    prop::collection::vec((0_u8..25, value), RECORDS).prop_map(|records| {
        records.into_iter().map(|(id, value)| (id, i64::from(id) * 5_000, value)).collect()
    })
}

fn log(records: &[(u8, i64, Option<i128>)]) -> Vec<UsageEvent<'static>> {
    let event = |(id, minutes, units): &(u8, i64, Option<i128>)| UsageEvent {
        code: Cow::Borrowed(if id % 2 == 0 { "even" } else { "odd" }),
        value: units.map(|units| Quantity::from_units(units).expect("within 38 digits")),
        ..event(&id.to_string(), *minutes, None)
    };
    records.iter().map(event).collect()
}

/// `code → (events, sum of units)` of what was inserted, by the ledger's own arithmetic.
fn expected(
    records: &[(u8, i64, Option<i128>)],
    inserted: &[usize],
) -> BTreeMap<String, (u64, BigInt)> {
    let mut first: BTreeMap<u8, usize> = BTreeMap::new();
    for record in inserted {
        let winner = first.entry(records[*record].0).or_insert(*record);
        *winner = (*winner).min(*record);
    }
    let mut totals: BTreeMap<String, (u64, BigInt)> = BTreeMap::new();
    for (id, record) in first {
        let code = if id % 2 == 0 { "even" } else { "odd" };
        let (events, sum) = totals.entry(code.to_owned()).or_default();
        *events += 1;
        *sum += records[record].2.unwrap_or(0);
    }
    totals
}

async fn run(database: &Database, records: &[(u8, i64, Option<i128>)], steps: &[Step]) {
    let log = log(records);
    let (mut inserted, mut last) = (Vec::new(), None);
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Insert(batch) => {
                let mut rows = EventRows::default();
                for record in batch {
                    push(&mut rows, &log[*record], position(u64::try_from(*record).unwrap()));
                }
                let rows = rows.finish();
                let token = InsertToken::new(&format!("step {number}"), &[], &rows.bytes);
                database.store.insert_events(&rows, &token).await.unwrap();
                inserted.extend_from_slice(batch);
                last = Some((rows, token));
            }
            Step::Retry => {
                if let Some((rows, token)) = &last {
                    database.store.insert_events(rows, token).await.unwrap();
                }
            }
            Step::Merge => database.execute("OPTIMIZE TABLE usage_events FINAL").await,
        }
        assert_eq!(
            totals(database, "count(), sum(value)", "billable_events").await,
            expected(records, &inserted)
        );
    }
    assert_eq!(
        totals(database, "sum(events), sum(value_sum)", "usage_by_hour").await,
        expected(records, &inserted)
    );
}

async fn totals(database: &Database, columns: &str, view: &str) -> BTreeMap<String, (u64, BigInt)> {
    let text = database.text(&format!("SELECT code, {columns} FROM {view} GROUP BY code")).await;
    let row = |line: &str| {
        let [code, events, sum] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        (code.to_owned(), (events.parse().unwrap(), units(sum)))
    };
    text.lines().map(row).collect()
}

/// The decimal text as a count of 10⁻¹²; null is the sum of nothing.
fn units(text: &str) -> BigInt {
    if text == "\\N" {
        return BigInt::ZERO;
    }
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{integer}{fraction:0<12}").parse().expect("digits")
}

#[test]
fn totals_are_exact_under_any_replay() {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let strategy = (records(), steps());
    let result = TestRunner::new(config).run(&strategy, |(records, steps)| {
        runtime.block_on(async {
            let database = shared().database("property").await;
            run(&database, &records, &steps).await;
            database.execute(&format!("DROP DATABASE {}", database.config.database)).await;
        });
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
