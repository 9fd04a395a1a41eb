//! Every kind of insert, and what happens when it is repeated.

use crate::engine::database;
use crate::events::{TOPIC, encode, event, position, push, start, token};
use chrono::{Months, TimeDelta};
use metering::properties::Properties;
use metering::{Quantity, UsageEvent};
use std::borrow::Cow;
use usage_store::{
    ConflictRow, DeadLetterRow, EventRows, IngestBatchRow, InsertToken, Retry, UsageStore,
};

const EXTREME: &str = "-99999999999999999999999999.999999999999";

#[tokio::test]
async fn every_column_arrives_as_it_was_sent() {
    let database = database("columns").await;
    let odd = "tab\there 'quote' \\ ünï\u{0}\u{1F600}";
    let event = UsageEvent {
        transaction_scope: Cow::Borrowed(odd),
        external_subscription_id: Cow::Borrowed("sub"),
        properties: Properties::parse(r#"{"a": [1, {"b": "x\ty"}]}"#).unwrap(),
        ..event("t", 7, Some(EXTREME))
    };
    let rows = encode(281_474_976_710_655, std::slice::from_ref(&event));
    database.store.insert_events(&rows, &token(0, 0, &rows)).await.unwrap();
    let sql = "SELECT organization_id, transaction_id, external_customer_id, external_subscription_id, code, timestamp, value,
        accepted_at, payload_fingerprint, topic_epoch, kafka_partition, kafka_offset, version FROM usage_events";
    let fingerprint = event.payload_fingerprint();
    let version = !((1_u64 << 48) | 281_474_976_710_655);
    let expected = format!(
        "o\tt\tc\tsub\tm\t2026-01-31 23:07:00.000\t{EXTREME}\t2026-01-31 23:07:00.000\t{fingerprint}\t1\t0\t281474976710655\t{version}\n"
    );
    assert_eq!(database.text(sql).await, expected);
    let hex: String = odd.bytes().map(|byte| format!("{byte:02X}")).collect();
    database.expect("SELECT hex(transaction_scope) FROM billable_events", &[&hex]).await;
    database
        .expect(
            "SELECT JSONExtractString(properties, 'a', 2, 'b') = 'x\\ty' FROM billable_events",
            &["1"],
        )
        .await;
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    let hash: String = metering::identity::identity_hash(&key)
        .0
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    database.expect("SELECT hex(identity_hash) FROM usage_events", &[&hash]).await;
}

#[tokio::test]
async fn no_quantity_stays_null() {
    let database = database("nulls").await;
    let rows = encode(1, &[event("a", 0, None), event("b", 0, Some("0"))]);
    database.store.insert_events(&rows, &token(1, 2, &rows)).await.unwrap();
    let sql = "SELECT transaction_id, value FROM billable_events ORDER BY transaction_id";
    database.expect(sql, &["a \\N", "b 0"]).await;
}

/// A single server notes a token before its part is in place, and so may know tokens whose rows it
/// never had.
#[tokio::test]
async fn a_retry_is_stored_whatever_tokens_the_server_knows() {
    let database = database("token").await;
    database.stop_merges().await;
    // Two months, so two parts.
    let rows = encode(1, &[event("a", 0, Some("1")), event("b", 120, Some("2"))]);
    for stored in ["2", "4", "6"] {
        database.store.insert_events(&rows, &token(1, 2, &rows)).await.unwrap();
        database.expect("SELECT count() FROM usage_events", &[stored]).await;
        database.expect("SELECT count(), sum(value) FROM billable_events", &["2 3"]).await;
    }
}

#[tokio::test]
async fn the_same_rows_in_another_batch_are_billed_once() {
    let database = database("rebatch").await;
    let events: Vec<_> = (0..9).map(|i| event(&i.to_string(), i * 30, Some("1"))).collect();
    for (first, last) in [(0, 9), (0, 4), (4, 9), (2, 7)] {
        let rows =
            encode(first, &events[usize::try_from(first).unwrap()..usize::try_from(last).unwrap()]);
        database.store.insert_events(&rows, &token(first, last - 1, &rows)).await.unwrap();
    }
    database.expect("SELECT count() > 9 FROM usage_events", &["1"]).await;
    database.expect("SELECT count(), sum(value) FROM billable_events", &["9 9"]).await;
}

#[tokio::test]
async fn the_largest_batch_is_one_block_in_each_month() {
    let database = database("largest").await;
    let mut rows = EventRows::default();
    for i in 0..u64::try_from(usage_store::event_rows::ROWS_MAX).unwrap() {
        push(&mut rows, &event(&i.to_string(), 0, None), position(i));
    }
    let rows = rows.finish();
    database.store.insert_events(&rows, &token(0, 99_999, &rows)).await.unwrap();
    let parts = "SELECT count(), sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'usage_events'";
    database.expect(parts, &["1 100000"]).await;
}

#[tokio::test]
async fn the_widest_batch_is_one_block() {
    let database = database("widest").await;
    let wide = format!("{{\"p\":\"{}\"}}", "x".repeat(60_000));
    let event = UsageEvent { properties: Properties::parse(&wide).unwrap(), ..event("t", 0, None) };
    let mut rows = EventRows::default();
    let mut offset = 0;
    while rows.has_room_for(&event) {
        push(&mut rows, &event, position(offset));
        offset += 1;
    }
    let rows = rows.finish();
    database.stop_merges().await;
    database.store.insert_events(&rows, &token(0, offset, &rows)).await.unwrap();
    // Merging on insert leaves one row of a block's equal keys; what counts is that it was one block.
    let parts = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'usage_events'";
    database.expect(parts, &["1"]).await;
    database.expect("SELECT count() FROM billable_events", &["1"]).await;
}

#[tokio::test]
async fn a_batch_may_touch_100_months() {
    let database = database("months").await;
    let far: Vec<_> = (0..100)
        .map(|i| UsageEvent {
            timestamp: start() + Months::new(i),
            ..event(&i.to_string(), 0, Some("1"))
        })
        .collect();
    let rows = encode(0, &far);
    database.store.insert_events(&rows, &token(0, 99, &rows)).await.unwrap();
    database
        .expect("SELECT count(), uniqExact(toYYYYMM(timestamp)) FROM billable_events", &["100 100"])
        .await;
}

#[tokio::test]
async fn conflicts_keep_the_whole_refused_payload() {
    let database = database("conflicts").await;
    let conflict = |offset| ConflictRow {
        event: UsageEvent {
            external_customer_id: Cow::Borrowed("other"),
            ..event("t", 1, Some("2.5"))
        },
        payload_fingerprint: 22,
        position: position(offset),
        first_epoch: 1,
        first_offset: 3,
        first_payload_fingerprint: 11,
    };
    for _ in 0..2 {
        database.store.insert_conflicts(&[conflict(8), conflict(9)]).await.unwrap();
    }
    // A replay that is batched differently.
    database.store.insert_conflicts(&[conflict(9)]).await.unwrap();
    let sql = "SELECT transaction_id, external_customer_id, timestamp, value, payload_fingerprint, kafka_offset, \
        first_payload_fingerprint, first_topic_epoch, first_kafka_offset FROM usage_event_conflicts FINAL ORDER BY kafka_offset";
    let row = |offset| format!("t other 2026-01-31 23:01:00.000 2.5 22 {offset} 11 1 3");
    database.expect(sql, &[&row(8), &row(9)]).await;
    database.store.insert_conflicts(&[]).await.unwrap();
}

#[tokio::test]
async fn dead_letters_keep_the_raw_record_up_to_a_limit() {
    let database = database("dead").await;
    let letter = |offset, length| DeadLetterRow {
        topic: Cow::Borrowed(TOPIC),
        position: position(offset),
        reason: Cow::Borrowed("malformed_json"),
        detail: Cow::Borrowed("the value is no JSON"),
        key: Cow::Borrowed(b"\xff\x00key"),
        value: Cow::Owned(vec![b'v'; length]),
        parked_at: start() + TimeDelta::try_seconds(i64::try_from(offset).unwrap()).unwrap(),
    };
    let limit = usage_store::audit_rows::DEAD_LETTER_VALUE_BYTES_MAX;
    // More than one INSERT holds: forty values of 1 MiB.
    let mut letters: Vec<_> = (10..50).map(|offset| letter(offset, limit)).collect();
    letters.push(letter(1, 0));
    letters.push(letter(2, limit + 1));
    for _ in 0..2 {
        database.store.insert_dead_letters(&letters).await.unwrap();
    }
    let sql = "SELECT kafka_offset, reason, hex(record_key), record_key_bytes, length(record_value), record_value_bytes, parked_at \
        FROM dead_letters FINAL WHERE kafka_offset < 10 ORDER BY kafka_offset";
    let cut =
        format!("2 malformed_json FF006B6579 5 {limit} {} 2026-01-31 23:00:02.000", limit + 1);
    database
        .expect(sql, &["1 malformed_json FF006B6579 5 0 0 2026-01-31 23:00:01.000", &cut])
        .await;
    database.expect("SELECT count() FROM dead_letters FINAL", &["42"]).await;
}

#[tokio::test]
async fn the_audit_of_batches_tiles_the_log_after_a_crash() {
    let database = database("audit").await;
    let batch = |first_offset, last_offset, seconds| IngestBatchRow {
        topic: Cow::Borrowed(TOPIC),
        epoch: 1,
        partition: 4,
        first_offset,
        last_offset,
        records: 10,
        stored: 6,
        duplicates: 2,
        conflicts: 1,
        dead_letters: 1,
        bytes_hash: u64::MAX,
        token: Cow::Borrowed("token"),
        inserted_at: start() + TimeDelta::seconds(seconds),
    };
    database.store.insert_batches(&[batch(0, 9, 1), batch(10, 19, 2)]).await.unwrap();
    // After the crash the second batch is cut longer.
    database.store.insert_batches(&[batch(10, 24, 3)]).await.unwrap();
    database.store.insert_batches(&[batch(25, 30, 4)]).await.unwrap();
    // The first attempt is noted again, late, by a process that had been stalled.
    database
        .store
        .insert_batches(&[batch(0, 9, 1), batch(10, 19, 2), batch(25, 30, 4)])
        .await
        .unwrap();
    let sql = "SELECT first_offset, last_offset FROM ingest_batches FINAL ORDER BY first_offset";
    database.expect(sql, &["0 9", "10 24", "25 30"]).await;
    let sql = "SELECT topic, topic_epoch, kafka_partition, records, stored, duplicates, conflicts, dead_letters, bytes_hash, token, \
        inserted_at FROM ingest_batches FINAL ORDER BY first_offset LIMIT 1";
    database
        .expect(
            sql,
            &["usage.events 1 4 10 6 2 1 1 18446744073709551615 token 2026-01-31 23:00:01.000"],
        )
        .await;
}

#[tokio::test]
async fn an_insert_that_only_a_person_can_cure_says_so() {
    let database = database("operator").await;
    database.execute("DROP TABLE usage_events").await;
    let rows = encode(0, &[event("a", 0, None)]);
    let error = database.store.insert_events(&rows, &token(0, 0, &rows)).await.unwrap_err();
    assert_eq!((error.retry, error.code), (Retry::NeedsOperator, Some(60)));
    let mut config = database.config.clone();
    config.url = format!("http://127.0.0.1:{}", local_engines::free_port());
    let error =
        UsageStore::connect(&config).insert_events(&rows, &token(0, 0, &rows)).await.unwrap_err();
    assert_eq!((error.retry, error.code), (Retry::SameBytes, None));
}

/// A server that goes by tokens goes by them alone, which is why ours hold a hash of the bytes.
#[tokio::test]
async fn a_token_that_does_not_name_the_bytes_loses_nothing_on_a_single_server() {
    let database = database("lossy").await;
    let (one, other) = (encode(0, &[event("a", 0, None)]), encode(0, &[event("b", 0, None)]));
    let lossy = InsertToken::new(TOPIC, &[(0, 0, 0)], b"");
    database.store.insert_events(&one, &lossy).await.unwrap();
    database.store.insert_events(&other, &lossy).await.unwrap();
    database.expect("SELECT transaction_id FROM billable_events ORDER BY 1", &["a", "b"]).await;
}

#[tokio::test]
async fn the_largest_quantities_fit() {
    let database = database("extremes").await;
    let largest = Quantity::from_units(10_i128.pow(38) - 1).unwrap();
    let events: Vec<_> = (0..20_i64)
        .map(|i| UsageEvent { value: Some(largest), ..event(&i.to_string(), i, None) })
        .collect();
    let rows = encode(0, &events);
    database.store.insert_events(&rows, &token(0, 19, &rows)).await.unwrap();
    database
        .expect(
            "SELECT sum(value) FROM billable_events",
            &["1999999999999999999999999999.99999999998"],
        )
        .await;
    database
        .expect(
            "SELECT value_sum, value_max FROM usage_by_hour",
            &["1999999999999999999999999999.99999999998 99999999999999999999999999.999999999999"],
        )
        .await;
    // The same sum over the raw column wraps, without an error.
    database.expect("SELECT sum(value) < 0 OR sum(value) < 1e26 FROM usage_events", &["1"]).await;
}
