//! The billing views stay exact whatever a query or a session asks for.

use crate::engine::{Database, database};
use crate::events::{encode, event, token};
use metering::UsageEvent;
use std::borrow::Cow;

/// Three copies of one identity that differ in their value only, written in the order `offsets`,
/// and never merged. The first copy in the log, at offset 1, has the value 1.
async fn copies(name: &str, offsets: [u64; 3]) -> Database {
    let database = database(name).await;
    database.stop_merges().await;
    for offset in offsets {
        let rows = encode(offset, &[event("t", 0, Some(&offset.to_string()))]);
        database.store.insert_events(&rows, &token(offset, offset, &rows)).await.unwrap();
    }
    database
}

#[tokio::test]
async fn the_first_copy_in_the_log_wins_in_every_order_of_arrival() {
    for offsets in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let database = copies("first_wins", offsets).await;
        database.expect("SELECT count() FROM usage_events", &["3"]).await;
        database.expect("SELECT value FROM billable_events", &["1"]).await;
        database.execute("OPTIMIZE TABLE usage_events FINAL").await;
        database.expect("SELECT count(), sum(value) FROM usage_events", &["1 1"]).await;
        database.expect("SELECT value FROM billable_events", &["1"]).await;
    }
}

#[tokio::test]
async fn no_session_setting_changes_a_total() {
    let database = copies("settings", [2, 1, 3]).await;
    let hostile = [
        ("do_not_merge_across_partitions_select_final", "1"),
        ("optimize_move_to_prewhere_if_final", "1"),
        ("use_skip_indexes_if_final", "1"),
        ("use_skip_indexes_if_final_exact_mode", "0"),
        ("defer_partition_pruning_after_final", "0"),
        ("enable_extended_results_for_datetime_functions", "0"),
        ("final", "1"),
    ];
    let queries = [
        ("SELECT count(), sum(value) FROM billable_events", "1\t1\n"),
        ("SELECT count() FROM billable_events WHERE value > 1", "0\n"),
        ("SELECT sum(events), sum(value_sum), max(value_max) FROM usage_by_hour", "1\t1\t1\n"),
    ];
    for (sql, expected) in queries {
        assert_eq!(database.try_text(sql, &hostile).await.as_deref(), Ok(expected), "{sql}");
        let inline: Vec<_> =
            hostile.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let inline = format!("{sql} SETTINGS {}", inline.join(", "));
        assert_eq!(database.text(&inline).await, expected, "{inline}");
    }
    // The table itself, read so, does give another answer: the test has teeth.
    let raw = "SELECT sum(value) FROM usage_events";
    assert_eq!(database.text(raw).await, "6\n");
}

#[tokio::test]
async fn a_filter_before_the_copies_are_compared_is_refused() {
    let database = copies("prewhere", [1, 2, 3]).await;
    database.expect("SELECT sum(value) FROM usage_events FINAL PREWHERE value > 1", &["2"]).await;
    for view in ["billable_events PREWHERE value > 1", "usage_by_hour PREWHERE value_max > 1"] {
        let error = database.try_text(&format!("SELECT * FROM {view}"), &[]).await.unwrap_err();
        assert!(error.contains("Code: 182"), "{error}");
    }
}

/// The skip index on `accepted_at` must not hide the copy that wins.
#[tokio::test]
async fn a_skip_index_does_not_let_a_later_copy_through() {
    let database = database("skip_index").await;
    database.stop_merges().await;
    let copy = |minutes| UsageEvent {
        accepted_at: event("", minutes, None).accepted_at,
        ..event("t", 0, Some("1"))
    };
    for (offset, minutes) in [(1, 0), (2, 600)] {
        let rows = encode(offset, &[copy(minutes)]);
        database.store.insert_events(&rows, &token(offset, offset, &rows)).await.unwrap();
    }
    let late = "SELECT count() FROM billable_events WHERE accepted_at > '2026-02-01 02:00:00'";
    database.expect(late, &["0"]).await;
    let inexact = [("use_skip_indexes_if_final_exact_mode", "0")];
    assert_eq!(database.try_text(late, &inexact).await.as_deref(), Ok("0\n"));
    // Without the settings of the view, the copy that lost would be billed.
    let raw = "SELECT count() FROM usage_events FINAL WHERE accepted_at > '2026-02-01 02:00:00'";
    assert_eq!(database.try_text(raw, &inexact).await.as_deref(), Ok("1\n"));
}

#[tokio::test]
async fn hours_and_months_are_half_open_utc() {
    let database = database("hours").await;
    let at = |id: &'static str, millis| UsageEvent {
        timestamp: chrono::DateTime::from_timestamp_millis(millis).unwrap(),
        ..event(id, 0, Some("1"))
    };
    let events = [
        at("first instant", 0),
        at("end of January", 1_769_903_999_999),
        at("February", 1_769_904_000_000),
        at("after 2106", 7_258_118_399_999),
        at("last instant", 10_413_791_999_999),
    ];
    let rows = encode(0, &events);
    database.store.insert_events(&rows, &token(0, 4, &rows)).await.unwrap();
    let hours = "SELECT hour, events FROM usage_by_hour ORDER BY hour";
    let expected = [
        "1970-01-01 00:00:00 1",
        "2026-01-31 23:00:00 1",
        "2026-02-01 00:00:00 1",
        "2199-12-31 23:00:00 1",
        "2299-12-31 23:00:00 1",
    ];
    database.expect(hours, &expected).await;
    let january = "SELECT transaction_id FROM billable_events WHERE timestamp >= '2026-01-01 00:00:00' AND timestamp < '2026-02-01 00:00:00'";
    database.expect(january, &["end of January"]).await;
}

#[tokio::test]
async fn hours_are_kept_apart_by_customer_subscription_and_metric() {
    let database = database("groups").await;
    let base = || event("", 5, Some("2"));
    let named = |id: &'static str, event: UsageEvent<'static>| UsageEvent {
        transaction_id: Cow::Borrowed(id),
        ..event
    };
    let events = [
        named("1", base()),
        named("2", base()),
        named("3", UsageEvent { value: None, ..base() }),
        named("4", UsageEvent { external_subscription_id: Cow::Borrowed("s"), ..base() }),
        named("5", UsageEvent { external_customer_id: Cow::Borrowed("d"), ..base() }),
        named("6", UsageEvent { code: Cow::Borrowed("n"), ..base() }),
        named("7", UsageEvent { organization_id: Cow::Borrowed("p"), ..base() }),
        named("8", UsageEvent { code: Cow::Borrowed("none"), value: None, ..base() }),
    ];
    let rows = encode(0, &events);
    database.store.insert_events(&rows, &token(0, 7, &rows)).await.unwrap();
    let sql = "SELECT organization_id, external_customer_id, external_subscription_id, code, events, events_with_value, \
        value_sum, value_min, value_max FROM usage_by_hour ORDER BY ALL";
    let expected = [
        "o c  m 3 2 4 2 2",
        "o c  n 1 1 2 2 2",
        "o c  none 1 0 0 \\N \\N",
        "o c s m 1 1 2 2 2",
        "o d  m 1 1 2 2 2",
        "p c  m 1 1 2 2 2",
    ];
    database.expect(sql, &expected).await;
}

#[tokio::test]
async fn a_customers_month_reads_only_its_own_part_of_the_table() {
    let database = database("pruning").await;
    let mut offset = 0;
    for month in 0..3 {
        let mut events = Vec::new();
        for customer in 0..200_u32 {
            for minute in 0..100 {
                events.push(UsageEvent {
                    external_customer_id: Cow::Owned(format!("customer-{customer}")),
                    ..event(
                        &format!("{customer}-{minute}"),
                        minute + 60 + month * 40_320,
                        Some("1"),
                    )
                });
            }
        }
        let rows = encode(offset, &events);
        database.store.insert_events(&rows, &token(offset, offset, &rows)).await.unwrap();
        offset += 20_000;
    }
    let filter = "organization_id = 'o' AND code = 'm' AND external_customer_id = 'customer-7'";
    for (view, time) in [("billable_events", "timestamp"), ("usage_by_hour", "hour")] {
        let sql = format!(
            "EXPLAIN indexes = 1 SELECT * FROM {view} WHERE {filter} AND {time} >= '2026-02-01 00:00:00' AND {time} < '2026-02-02 00:00:00'"
        );
        let plan = database.text(&sql).await;
        let read = plan
            .lines()
            .rfind(|line| line.trim().starts_with("Granules:"))
            .unwrap_or(&plan)
            .trim()
            .to_owned();
        assert!(
            read.starts_with("Granules: 1/") || read.starts_with("Granules: 2/"),
            "{read} in {plan}"
        );
    }
}
