//! Rebuilding the dedup index from the store.

use crate::engine::{Database, database};
use crate::events::{TOPIC, event, push, start};
use chrono::{DateTime, TimeDelta, Utc};
use metering::UsageEvent;
use service_kit::clock::{Clock as _, SystemClock};
use std::borrow::Cow;
use std::collections::BTreeSet;
use usage_store::{EventRows, IdentityRow, IngestBatchRow, InsertToken, Position, Remembered};

async fn insert(database: &Database, events: &[(UsageEvent<'static>, Position)]) {
    let mut rows = EventRows::default();
    for (event, position) in events {
        push(&mut rows, event, *position);
    }
    let rows = rows.finish();
    let token = InsertToken::new("t", &[], &rows.bytes);
    database.store.insert_events(&rows, &token).await.unwrap();
}

async fn remembered(
    database: &Database,
    epoch: u16,
    partitions: &[u16],
    since: DateTime<Utc>,
) -> BTreeSet<IdentityRow> {
    let mut rows = BTreeSet::new();
    database
        .store
        .remembered_identities(Remembered { epoch, partitions, since }, |row| {
            rows.insert(row);
        })
        .await
        .unwrap();
    rows
}

fn row(event: &UsageEvent<'_>, position: Position) -> IdentityRow {
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    IdentityRow {
        partition: position.partition,
        epoch: position.epoch,
        offset: position.offset,
        hash: metering::identity::identity_hash(&key).0,
        fingerprint: event.payload_fingerprint(),
        accepted_hour: u32::try_from(event.accepted_at.timestamp() / 3600).unwrap(),
    }
}

#[tokio::test]
async fn a_partition_remembers_its_own_since_an_instant() {
    let database = database("remembered").await;
    let at = |epoch, partition, offset| Position { epoch, partition, offset };
    let accepted = |id: &str, seconds| UsageEvent {
        accepted_at: start() + TimeDelta::seconds(seconds),
        ..event(id, 0, None)
    };
    let stored = [
        (accepted("before", -1), at(1, 0, 1)),
        (accepted("at", 0), at(1, 0, 2)),
        (accepted("after", 1), at(1, 0, 3)),
        (accepted("other partition", 1), at(1, 1, 9)),
        (accepted("earlier epoch", 1), at(0, 0, 70)),
        (accepted("later epoch", 1), at(2, 0, 5)),
    ];
    insert(&database, &stored).await;
    insert(&database, &stored[2..3]).await;
    let expected =
        |indices: &[usize]| indices.iter().map(|i| row(&stored[*i].0, stored[*i].1)).collect();
    assert_eq!(remembered(&database, 1, &[0], start()).await, expected(&[1, 2, 4]));
    assert_eq!(remembered(&database, 1, &[1], start()).await, expected(&[3]));
    assert_eq!(remembered(&database, 1, &[7], start()).await, BTreeSet::new());
    assert_eq!(remembered(&database, 1, &[], start()).await, BTreeSet::new());
    assert_eq!(remembered(&database, 1, &[0, 7, 1], start()).await, expected(&[1, 2, 3, 4]));
    // Copies that were not merged count each.
    let count = database.store.count_identities(Remembered {
        epoch: 1,
        partitions: &[0, 1, 7],
        since: start(),
    });
    assert_eq!(
        count.await.unwrap().into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([(0, 4), (1, 1)])
    );
    assert_eq!(
        remembered(&database, 2, &[0], start() - TimeDelta::days(1)).await,
        expected(&[0, 1, 2, 4, 5])
    );
}

#[tokio::test]
async fn the_highest_offset_is_that_of_the_topic_epoch_and_partition() {
    let database = database("highest").await;
    let audit = |partition, first_offset, last_offset| IngestBatchRow {
        topic: Cow::Borrowed(TOPIC),
        epoch: 1,
        partition,
        first_offset,
        last_offset,
        records: 1,
        stored: 0,
        duplicates: 1,
        conflicts: 0,
        dead_letters: 0,
        bytes_hash: 0,
        token: Cow::Borrowed(""),
        inserted_at: start(),
    };
    let highest = async |topic, epoch, partition| {
        database.store.highest_stored_offset(topic, epoch, partition).await.unwrap()
    };
    assert_eq!(highest(TOPIC, 1, 0).await, None);
    database.store.insert_batches(&[audit(0, 5, 7), audit(0, 0, 4), audit(2, 0, 0)]).await.unwrap();
    assert_eq!(highest(TOPIC, 1, 0).await, Some(7));
    assert_eq!(highest(TOPIC, 1, 1).await, None);
    assert_eq!(highest(TOPIC, 1, 2).await, Some(0));
    assert_eq!(highest(TOPIC, 2, 0).await, None);
    assert_eq!(highest("another", 1, 0).await, None);
}

#[tokio::test]
async fn the_recent_insert_is_the_earliest_of_the_newest_hundred() {
    let database = database("recent").await;
    let audit = |first_offset: u64, seconds| IngestBatchRow {
        topic: Cow::Borrowed(TOPIC),
        epoch: 1,
        partition: 3,
        first_offset,
        last_offset: first_offset,
        records: 1,
        stored: 1,
        duplicates: 0,
        conflicts: 0,
        dead_letters: 0,
        bytes_hash: 0,
        token: Cow::Borrowed(""),
        inserted_at: start() + TimeDelta::seconds(seconds),
    };
    let recent = async || {
        // The engine runs on this machine, and tells whole milliseconds.
        let before = SystemClock.now().timestamp_millis();
        let recent = database.store.recent_insert(TOPIC, 1, 3).await.unwrap();
        let after = SystemClock.now().timestamp_millis();
        assert!((before..=after).contains(&recent.now.timestamp_millis()), "{}", recent.now);
        recent.inserted_at
    };
    assert_eq!(recent().await, None);
    let rows: Vec<_> = (0..150).map(|offset: i64| audit(offset.unsigned_abs(), offset)).collect();
    database.store.insert_batches(&rows).await.unwrap();
    assert_eq!(recent().await, Some(start() + TimeDelta::seconds(50)));
    // For a moment the clock was 90 days ahead.
    database.store.insert_batches(&[audit(150, 90 * 86_400)]).await.unwrap();
    assert_eq!(recent().await, Some(start() + TimeDelta::seconds(51)));
}

#[tokio::test]
async fn many_identities_arrive_complete() {
    let database = database("many").await;
    let sql = "INSERT INTO usage_events (organization_id, transaction_id, timestamp, accepted_at, identity_hash, payload_fingerprint, \
        topic_epoch, kafka_partition, kafka_offset) SELECT 'o', toString(number), '2026-01-01 00:00:00', '2026-01-01 00:00:00', \
        sipHash128(number), number * 7, 1, 3, number FROM numbers(500000)";
    database.execute(sql).await;
    let (mut offsets, mut fingerprints) = (0_u64, 0_u64);
    let since = start() - TimeDelta::days(100);
    let count = database
        .store
        .remembered_identities(Remembered { epoch: 1, partitions: &[3], since }, |row| {
            offsets += row.offset;
            fingerprints += row.fingerprint;
        })
        .await
        .unwrap();
    let sum = 500_000 * 499_999 / 2;
    assert_eq!((count, offsets, fingerprints), (500_000, sum, 7 * sum));
}
