//! The SQL of docs/billing-queries.md, run on the events of the page.

use crate::engine::database;
use crate::events::{encode, event, token};
use chrono::{DateTime, Utc};
use metering::properties::Properties;
use metering::{Aggregation, Quantity, UsageEvent};
use std::borrow::Cow;
use usage_store::EncodedRows;

const PAGE: &str = include_str!("../../../../docs/billing-queries.md");

/// The cells of the rows of the table that starts with the column `first`.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let header = format!("| {first} |");
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(&header));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn events() -> Vec<UsageEvent<'static>> {
    let parse = |row: Vec<&'static str>| {
        let [id, customer, code, timestamp, value, properties] = row[..] else {
            panic!("six columns: {row:?}")
        };
        let timestamp: DateTime<Utc> = format!("{timestamp}Z").parse().expect("an instant");
        UsageEvent {
            organization_id: Cow::Borrowed("demo"),
            external_customer_id: Cow::Borrowed(customer),
            code: Cow::Borrowed(code),
            timestamp,
            accepted_at: timestamp,
            value: (!value.is_empty()).then(|| Quantity::parse(value).expect("a quantity")),
            properties: Properties::parse(properties).expect("an object"),
            ..event(id, 0, None)
        }
    };
    table("transaction_id").into_iter().map(parse).collect()
}

/// Each block of SQL with the text block that follows it.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```sql\n").skip(1);
    blocks
        .map(|block| {
            let (sql, rest) = block.split_once("```").expect("the block ends");
            let result = rest.split_once("```text\n").expect("a result follows").1;
            (sql, result.split_once("```").expect("the result ends").0)
        })
        .collect()
}

#[tokio::test]
async fn every_query_of_the_page_gives_the_result_of_the_page() {
    let database = database("page").await;
    let parameters: Vec<(String, &str)> =
        table("parameter").into_iter().map(|row| (format!("param_{}", row[0]), row[1])).collect();
    let settings: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let events = events();
    for first in [0, 0, 5] {
        let rows = encode(first, &events[usize::try_from(first).unwrap()..]);
        database.store.insert_events(&rows, &token(first, 99, &rows)).await.unwrap();
    }
    let examples = examples();
    assert!(examples.len() >= Aggregation::ALL.len());
    for (sql, expected) in examples {
        assert_eq!(database.try_text(sql, &settings).await.as_deref(), Ok(expected), "{sql}");
    }
}

#[tokio::test]
async fn properties_that_cannot_be_read_are_an_error_and_not_nothing() {
    let database = database("unreadable").await;
    let huge = UsageEvent {
        organization_id: Cow::Borrowed("demo"),
        external_customer_id: Cow::Borrowed("acme"),
        code: Cow::Borrowed("active_users"),
        properties: Properties::parse(r#"{"user":"ann","n":1844674407370955161 }"#)
            .expect("an object"),
        ..event("t", 0, None)
    };
    // Validation refuses an integer that 64 bits do not hold, so it is put into the row's bytes.
    let EncodedRows { bytes, rows } = encode(0, &[huge]);
    let at = bytes.windows(20).position(|text| text == b"1844674407370955161 ").unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + 20].copy_from_slice(b"18446744073709551616");
    let rows = EncodedRows { bytes: bytes.into(), rows };
    database.store.insert_events(&rows, &token(0, 0, &rows)).await.unwrap();
    let parameters = [
        ("param_organization", "demo"),
        ("param_customer", "acme"),
        ("param_start", "2026-01-01 00:00:00.000"),
        ("param_end", "2026-02-01 00:00:00.000"),
    ];
    let (sql, _) =
        examples().into_iter().find(|(sql, _)| sql.contains("uniqExact")).expect("an example");
    let error = database.try_text(sql, &parameters).await.unwrap_err();
    assert!(error.contains("some properties cannot be read"), "{error}");
}

#[test]
fn every_aggregation_has_its_section() {
    for aggregation in Aggregation::ALL {
        let heading = format!("\n## {aggregation}\n");
        assert!(PAGE.contains(&heading), "{aggregation}");
    }
}
