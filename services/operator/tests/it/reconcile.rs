//! A sound run passes, and each kind of damage is found.

use crate::bench::{Bench, event, failed, now, on_both_logs, owner};
use chrono::TimeDelta;
use metering::UsageEvent;
use operator::reconcile::text::text;
use operator::reconcile::{NotChecked, Request};
use std::borrow::Cow;

/// Columns of a row that can be copied with changes.
const COLUMNS: &str = "organization_id, transaction_scope, transaction_id, external_customer_id, external_subscription_id, code, \
                       timestamp, value, properties, accepted_at, identity_hash, payload_fingerprint, topic_epoch, kafka_partition, kafka_offset";

/// 90 events, 30 repeats, 10 conflicts and 5 records that are no events, over two batches.
fn sound(mut bench: Bench) -> Bench {
    let events: Vec<_> = (0..90).map(|n| event(format!("t{n:02}"), n)).collect();
    bench.publish(&events[..60]);
    bench.consume();
    bench.publish(&events[60..]);
    bench.publish(&events[..30]);
    let changed: Vec<_> = (0..10).map(|n| event(format!("t{n:02}"), n + 1000)).collect();
    bench.publish(&changed);
    let garbage: Vec<_> = (0..5).map(|n| (n % 3, b"k".to_vec(), b"garbage".to_vec())).collect();
    bench.publish_raw(&garbage);
    bench.consume();
    bench
}

/// Rewrites the events table as `rows` of itself, as a careless person could.
fn rewrite(bench: &Bench, rows: &str) {
    bench.execute("CREATE TABLE copied AS usage_events");
    bench.execute(&format!("INSERT INTO copied ({COLUMNS}) {rows}"));
    bench.execute("EXCHANGE TABLES usage_events AND copied");
    bench.execute("DROP TABLE copied");
}

#[test]
fn a_sound_run_passes_with_exact_counts() {
    on_both_logs(|bench| {
        let bench = sound(bench);
        let report = bench.reconcile();
        assert!(report.passed, "{}", text(&report));
        let total = &report.total;
        assert_eq!(
            [total.accepted, total.billed, total.repeats, total.conflicts, total.parked],
            [130, 90, 30, 10, 0]
        );
        assert_eq!(total.difference, "0");
        assert_eq!(total.log_hash, total.store_hash);
        assert_ne!(total.log_hash, "0".repeat(64));
        assert_eq!((report.unreadable.accepted, report.unreadable.parked), (5, 5));
        assert_eq!(report.reused_beyond_horizon.count, 0);
        assert!(report.lines.iter().all(|line| line.organization.as_deref() == Some("org_demo")));
        let only = Request { organization: Some("org_demo".to_owned()), ..Bench::request() };
        assert_eq!(bench.try_reconcile(&only).unwrap().total.billed, 90);
        let none = Request { organization: Some("nobody".to_owned()), ..Bench::request() };
        assert_eq!(bench.try_reconcile(&none).unwrap().total.billed, 0);
    });
}

#[test]
fn copies_of_events_from_before_the_period_are_repeats() {
    let mut bench = Bench::embedded();
    let old = UsageEvent { accepted_at: now() - TimeDelta::days(3), ..event("old", 1) };
    bench.publish(std::slice::from_ref(&old));
    bench.consume();
    bench.expire(TimeDelta::days(2));
    let again = UsageEvent { accepted_at: now(), ..old.clone() };
    bench.publish(&[again.clone(), UsageEvent { value: None, ..again }]);
    bench.consume();
    // The log says that they were appended two days from now.
    let request = Request {
        period: now() - TimeDelta::hours(1)..now() + TimeDelta::days(3),
        ..Bench::request()
    };
    let later = now() + TimeDelta::days(4);
    let report = bench
        .runtime
        .block_on(operator::reconcile::reconcile(&mut bench.engines(), &request, later))
        .unwrap();
    assert!(report.passed, "{}", text(&report));
    let total = &report.total;
    assert_eq!([total.accepted, total.billed, total.repeats, total.conflicts], [2, 0, 1, 1]);
}

#[test]
fn a_row_that_was_deleted_is_found_with_its_identity() {
    let bench = sound(Bench::embedded());
    rewrite(&bench, &format!("SELECT {COLUMNS} FROM usage_events WHERE transaction_id != 't07'"));
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["every_event_billed"], "{}", text(&report));
    assert_eq!(report.total.difference, "1");
    let example = &report.checks[0].examples[0];
    assert_eq!(example.transaction_id.as_deref(), Some("t07"));
    assert_eq!(example.partition, owner(&event("t07", 7)));
    assert_ne!(report.total.log_hash, report.total.store_hash);
    assert!(text(&report).contains("What to do: run `tallymark replay"));
}

#[test]
fn a_row_too_many_is_found() {
    let bench = sound(Bench::embedded());
    // At a place that the log does not have, with an id of its own.
    bench.execute(&format!(
        "INSERT INTO usage_events ({COLUMNS}) SELECT {} FROM usage_events WHERE transaction_id = 't07' LIMIT 1",
        COLUMNS
            .replace("transaction_id,", "'extra',")
            .replace(" identity_hash", " toFixedString('extra', 16)")
            .replace("kafka_offset", "99999")
    ));
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["nothing_else_billed"], "{}", text(&report));
    assert_eq!(report.total.difference, "-1");
    assert_eq!(report.checks[1].examples[0].transaction_id.as_deref(), Some("extra"));
}

#[test]
fn a_changed_value_and_swapped_values_are_found() {
    let bench = sound(Bench::embedded());
    rewrite(
        &bench,
        &format!(
            "SELECT {} FROM usage_events",
            COLUMNS.replace(
                " value,",
                " multiIf(transaction_id = 't08', 9, transaction_id = 't09', 8, value),"
            )
        ),
    );
    let report = bench.reconcile();
    assert!(!report.passed);
    // The counts and even the sum of the values are as before.
    assert_eq!((report.total.difference.as_str(), report.total.billed), ("0", 90));
    assert_eq!(failed(&report), ["content_unchanged"], "{}", text(&report));
    let mut ids: Vec<_> =
        report.checks[3].examples.iter().filter_map(|e| e.transaction_id.clone()).collect();
    ids.retain(|id| !id.is_empty());
    ids.sort();
    assert_eq!(ids, ["t08", "t09"]);
}

#[test]
fn a_lost_audit_row_is_a_gap_and_a_wrong_one_disagrees() {
    let bench = sound(Bench::embedded());
    bench.execute("CREATE TABLE audit AS ingest_batches");
    bench.execute("INSERT INTO audit SELECT * FROM ingest_batches WHERE NOT (kafka_partition = 1 AND first_offset = 0)");
    bench.execute("EXCHANGE TABLES ingest_batches AND audit");
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["audit_complete"], "{}", text(&report));
    bench.execute("TRUNCATE TABLE ingest_batches");
    bench.execute(
        "INSERT INTO ingest_batches SELECT * REPLACE (stored + 1 AS stored, duplicates - 1 AS duplicates) FROM audit WHERE kafka_partition = 2 AND duplicates > 0",
    );
    bench.execute("INSERT INTO ingest_batches SELECT * FROM audit WHERE NOT (kafka_partition = 2 AND duplicates > 0)");
    assert_eq!(failed(&bench.reconcile()), ["audit_agrees"]);
}

#[test]
fn lost_conflicts_and_dead_letters_are_found() {
    let bench = sound(Bench::embedded());
    bench.execute("TRUNCATE TABLE usage_event_conflicts");
    bench.execute("TRUNCATE TABLE dead_letters");
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["conflicts_kept", "records_parked"], "{}", text(&report));
    assert_eq!(report.total.difference, "10");
    assert_eq!((report.unreadable.accepted, report.unreadable.parked), (5, 0));
}

#[test]
fn an_id_that_is_billed_twice_is_found() {
    let bench = sound(Bench::embedded());
    // As if a consumer had billed a copy that it should have known, a day before the period.
    let columns = COLUMNS
        .replace("accepted_at", "accepted_at - INTERVAL 1 DAY")
        .replace("timestamp,", "timestamp + INTERVAL 1 SECOND,")
        .replace("kafka_offset", "kafka_offset + 1000");
    bench.execute(&format!(
        "INSERT INTO usage_events ({COLUMNS}) SELECT {columns} FROM usage_events WHERE transaction_id = 't12' LIMIT 1"
    ));
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["nothing_billed_twice"], "{}", text(&report));
    assert_eq!(report.checks[2].examples[0].transaction_id.as_deref(), Some("t12"));
}

/// Under one sort key `FINAL` bills the first and leaves out the second, whether they were merged or not.
#[test]
fn a_stored_repeat_that_is_not_billed_is_no_failure_of_the_bill() {
    let mut bench = Bench::embedded();
    let twice = event("t", 1);
    for _ in 0..2 {
        bench.publish(std::slice::from_ref(&twice));
        bench.consume();
    }
    // The repeat at offset 1 is stored nevertheless, and then everything a second time.
    let columns = COLUMNS.replace("kafka_offset", "1");
    bench.execute(&format!(
        "INSERT INTO usage_events ({COLUMNS}) SELECT {columns} FROM usage_events"
    ));
    let all = format!("SELECT {COLUMNS} FROM usage_events");
    bench.execute(&format!("INSERT INTO usage_events ({COLUMNS}) {all}"));
    assert_eq!(bench.number("SELECT count() FROM billable_events"), 1);
    for _ in 0..2 {
        let report = bench.reconcile();
        assert!(report.passed, "{}", text(&report));
        let total = &report.total;
        assert_eq!([total.accepted, total.billed, total.repeats], [2, 1, 1]);
        bench.execute("OPTIMIZE TABLE usage_events FINAL");
    }
}

#[test]
fn an_id_used_again_after_the_horizon_is_listed_and_passes() {
    let mut bench = Bench::embedded();
    let first = UsageEvent { accepted_at: now() - TimeDelta::days(36), ..event("again", 1) };
    let second =
        UsageEvent { timestamp: first.timestamp + TimeDelta::days(36), ..event("again", 2) };
    bench.publish(&[first]);
    bench.consume();
    // As the consumer does that has forgotten the first one.
    bench.publish(std::slice::from_ref(&second));
    bench.consume();
    bench.execute("TRUNCATE TABLE usage_event_conflicts");
    bench.execute(&format!(
        "INSERT INTO usage_events ({COLUMNS}) SELECT {} FROM usage_events",
        COLUMNS
            .replace(
                " timestamp,",
                &format!(
                    " fromUnixTimestamp64Milli({}, 'UTC'),",
                    second.timestamp.timestamp_millis()
                )
            )
            .replace(" value,", " 2,")
            .replace(
                "accepted_at",
                &format!(
                    "fromUnixTimestamp64Milli({}, 'UTC')",
                    second.accepted_at.timestamp_millis()
                )
            )
            .replace("kafka_offset", "kafka_offset + 1")
    ));
    bench.execute("CREATE TABLE audit AS ingest_batches");
    bench.execute("INSERT INTO audit SELECT * REPLACE (records AS stored, 0 AS conflicts) FROM ingest_batches");
    bench.execute("EXCHANGE TABLES ingest_batches AND audit");
    let report = bench.reconcile();
    assert!(report.passed, "{}", text(&report));
    assert_eq!(report.reused_beyond_horizon.count, 1);
    assert_eq!(report.reused_beyond_horizon.examples[0].transaction_id.as_deref(), Some("again"));
    assert!(text(&report).contains("NOTE  1 ids were used again"));
}

#[test]
fn what_retention_deleted_is_checked_against_the_audit() {
    let bench = sound(Bench::embedded());
    bench.expire(TimeDelta::days(2));
    let report = bench.reconcile();
    assert!(report.passed, "{}", text(&report));
    assert_eq!((report.total.accepted, report.total.billed), (0, 0));
    assert_eq!(report.total.billed_without_log, 90);
    let ranges: Vec<_> = report.partitions.iter().flat_map(|p| &p.without_log).collect();
    assert_eq!(ranges.len(), 3, "each partition says what was checked only so");
    assert!(text(&report).contains("Checked against the audit only: partition 0"));
    rewrite(&bench, &format!("SELECT {COLUMNS} FROM usage_events WHERE transaction_id != 't07'"));
    assert_eq!(failed(&bench.reconcile()), ["audit_agrees"]);
}

/// The log has expired, and no row or range says that there ever was anything.
#[test]
fn a_period_of_which_nothing_is_left_fails() {
    let bench = sound(Bench::embedded());
    bench.expire(TimeDelta::days(2));
    bench.execute("CREATE TABLE audit AS ingest_batches");
    bench.execute("INSERT INTO audit SELECT * FROM ingest_batches FINAL");
    for table in ["usage_events", "usage_event_conflicts", "dead_letters", "ingest_batches"] {
        bench.execute(&format!("TRUNCATE TABLE {table}"));
    }
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["audit_complete"], "{}", text(&report));
    assert_eq!(report.checks[6].count, 3, "each partition");
    assert_eq!(report.checks[6].examples[0].offset, 0);
    // A period that ended before anything of it was decided has lost nothing.
    let long_ago = now() - TimeDelta::days(30);
    let older = Request { period: long_ago..long_ago + TimeDelta::hours(1), ..Bench::request() };
    bench.execute("INSERT INTO ingest_batches SELECT * FROM audit WHERE first_offset = 0");
    let report = bench.try_reconcile(&older).unwrap();
    assert!(report.passed, "{}", text(&report));
    // Of what was decided last nothing is left.
    bench.execute("TRUNCATE TABLE ingest_batches");
    bench.execute("INSERT INTO ingest_batches SELECT * REPLACE (0 AS records, 0 AS stored, 0 AS duplicates, 0 AS conflicts, 0 AS dead_letters, inserted_at - INTERVAL 1 DAY AS inserted_at) FROM audit WHERE first_offset = 0");
    let report = bench.reconcile();
    assert_eq!(failed(&report), ["audit_complete"], "{}", text(&report));
    // The loss is accepted.
    bench.execute("INSERT INTO ingest_batches SELECT * REPLACE (0 AS records, 0 AS stored, 0 AS duplicates, 0 AS conflicts, 0 AS dead_letters) FROM audit WHERE first_offset != 0");
    let report = bench.reconcile();
    assert!(report.passed, "{}", text(&report));
}

#[test]
fn a_period_that_is_not_settled_is_refused_and_no_failure() {
    let mut bench = Bench::embedded();
    bench.publish(&[event("a", 1)]);
    bench.consume();
    bench.publish(&[event("b", 1), event("c", 1), event("d", 1), event("e", 1)]);
    let behind = bench.try_reconcile(&Bench::request());
    assert!(
        matches!(&behind, Err(NotChecked::NotSettled(why)) if why.contains("behind")),
        "{behind:?}"
    );
    bench.consume();
    let period = now() - TimeDelta::hours(1)..now() + TimeDelta::minutes(58);
    let open = bench.try_reconcile(&Request { period, ..Bench::request() });
    assert!(
        matches!(&open, Err(NotChecked::NotSettled(why)) if why.contains("still be on their way")),
        "{open:?}"
    );
    let small = bench.try_reconcile(&Request { memory: 40, ..Bench::request() });
    assert!(matches!(&small, Err(NotChecked::TooMuch { .. })), "{small:?}");
    let empty = Request { period: now()..now(), ..Bench::request() };
    assert!(matches!(bench.try_reconcile(&empty), Err(NotChecked::Configuration(_))));
}

#[test]
fn lines_are_by_organization_and_hour() {
    let mut bench = Bench::embedded();
    let other = |id: &str, ago: TimeDelta| UsageEvent {
        organization_id: Cow::Borrowed("org_other"),
        accepted_at: now() - ago,
        ..event(id, 1)
    };
    bench.publish(&[
        event("a", 1),
        other("a", TimeDelta::zero()),
        other("b", TimeDelta::hours(1)),
        other("c", TimeDelta::hours(1)),
    ]);
    bench.consume();
    let period = now() - TimeDelta::hours(2)..now() + TimeDelta::minutes(30);
    let request = Request { period, settle: std::time::Duration::from_secs(1), ..Bench::request() };
    let report = bench.try_reconcile(&request).unwrap();
    assert!(report.passed, "{}", text(&report));
    let lines: Vec<_> = report
        .lines
        .iter()
        .map(|line| (line.organization.as_deref().unwrap(), line.billed))
        .collect();
    assert_eq!(lines, [("org_demo", 1), ("org_other", 2), ("org_other", 1)]);
    assert_eq!(report.total.billed, 4);
}
