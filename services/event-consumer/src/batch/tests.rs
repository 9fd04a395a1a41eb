use super::*;
use crate::decode::Refused;
use event_log::FetchedRecord;
use metering::UsageEvent;
use metering::identity::identity_hash;

fn source() -> Source {
    Source { topic: "usage.events".to_owned(), epoch: 1, partition_count: 4 }
}

fn tenure(partition: PartitionId) -> Tenure {
    Tenure { partition, generation: 1 }
}

fn position(partition: PartitionId, offset: Offset) -> Position {
    Position { epoch: 1, partition, offset }
}

fn stored() -> Outcome<'static> {
    Outcome::Stored(Decoded {
        event: UsageEvent::example(),
        identity: identity_hash(b"a"),
        fingerprint: 1,
    })
}

fn dead(offset: Offset) -> Outcome<'static> {
    let refused = Refused { reason: "malformed_json", detail: "no".to_owned() };
    let record = FetchedRecord { offset, key: b"key", value: b"value" };
    Outcome::DeadLetter(dead_letter::park(&source(), position(0, offset), &record, refused, at()))
}

fn at() -> DateTime<Utc> {
    UsageEvent::example().timestamp
}

fn limits() -> BatchLimits {
    BatchLimits { rows: 3, bytes: 1_000_000, months: 2, age: Duration::from_secs(1) }
}

/// A batch with one record of each outcome given, from offset 10 of partition 0 on.
fn filled(limits: BatchLimits, outcomes: impl IntoIterator<Item = Outcome<'static>>) -> Batch {
    let mut batch = Batch::new(limits);
    for (offset, outcome) in (10..).zip(outcomes) {
        batch.add(tenure(0), offset, position(0, offset), outcome, Instant::now());
    }
    batch
}

#[test]
fn a_batch_is_full_at_each_limit_and_not_one_before() {
    assert!(!filled(limits(), [stored(), dead(11)]).is_full());
    assert!(filled(limits(), [stored(), dead(11), stored()]).is_full(), "rows of all kinds count");
    let duplicates = || (0..100).map(|_| Outcome::Duplicate);
    assert!(!filled(limits(), duplicates()).is_full(), "a duplicate takes no room");
    let bytes = filled(limits(), [stored()]).bytes;
    assert!(filled(BatchLimits { bytes, ..limits() }, [stored()]).is_full());
    assert!(!filled(BatchLimits { bytes: bytes + 1, ..limits() }, [stored()]).is_full());
    assert!(filled(BatchLimits { months: 1, ..limits() }, [stored()]).is_full());
}

#[test]
fn a_batch_is_due_when_its_first_record_has_waited_long_enough() {
    let opened = Instant::now();
    let mut batch = Batch::new(limits());
    assert!(!batch.is_due(opened + Duration::from_secs(100)), "there is nothing to send");
    batch.add(tenure(0), 0, position(0, 0), Outcome::Duplicate, opened);
    batch.add(
        tenure(0),
        0,
        position(0, 1),
        Outcome::Duplicate,
        opened + Duration::from_millis(500),
    );
    assert!(!batch.is_due(opened + Duration::from_millis(999)));
    assert!(batch.is_due(opened + Duration::from_secs(1)));
}

#[test]
fn ranges_begin_where_the_one_before_ended_and_span_gaps() {
    let mut batch = Batch::new(limits());
    let now = Instant::now();
    batch.add(tenure(2), 7, position(2, 9), stored(), now);
    batch.add(tenure(2), 10, position(2, 12), Outcome::Duplicate, now);
    batch.add(tenure(1), 0, position(1, 0), Outcome::Duplicate, now);
    let sealed = batch.seal(&source(), at());
    assert_eq!(
        sealed.ranges,
        [
            Range { tenure: tenure(1), first: 0, next: 1 },
            Range { tenure: tenure(2), first: 7, next: 13 }
        ]
    );
    let audit: Vec<_> = sealed
        .audit
        .iter()
        .map(|row| (row.partition, row.first_offset, row.last_offset, row.records, row.stored))
        .collect();
    assert_eq!(audit, [(1, 0, 0, 1, 0), (2, 7, 12, 2, 1)]);
    assert_eq!((sealed.audit[0].bytes_hash, sealed.audit[0].token.as_ref()), (0, ""));
    assert_eq!(
        (sealed.audit[1].bytes_hash, sealed.audit[1].token.as_ref()),
        (sealed.rows.hash(), sealed.token.as_str())
    );
    assert!(batch.is_empty() && !batch.is_due(now + Duration::from_secs(9)));
}

#[test]
fn nothing_of_an_abandoned_partition_is_left() {
    let mut batch = filled(limits(), [stored(), dead(11)]);
    batch.add(tenure(1), 0, position(1, 0), stored(), Instant::now());
    assert!(batch.is_full());
    let alone = {
        let mut alone = Batch::new(limits());
        alone.add(tenure(1), 0, position(1, 0), stored(), Instant::now());
        alone
    };
    batch.abandon(0);
    assert_eq!((batch.rows, batch.bytes), (alone.rows, alone.bytes));
    let sealed = batch.seal(&source(), at());
    assert_eq!((sealed.rows.rows, sealed.ranges.len(), sealed.dead_letters.len()), (1, 1, 0));
    let mut batch = filled(limits(), [stored()]);
    batch.abandon(0);
    assert!(batch.is_empty() && !batch.is_due(Instant::now() + Duration::from_secs(9)));
}

#[test]
fn rows_of_all_partitions_are_one_insert() {
    let mut batch = filled(limits(), [stored()]);
    batch.add(tenure(3), 0, position(3, 0), stored(), Instant::now());
    let sealed = batch.seal(&source(), at());
    let one = |partition| {
        let mut rows = EventRows::default();
        let offset = if partition == 0 { 10 } else { 0 };
        rows.push(&UsageEvent::example(), position(partition, offset), identity_hash(b"a"), 1);
        rows.finish().bytes.to_vec()
    };
    assert_eq!(sealed.rows.bytes, [one(0), one(3)].concat());
    assert_eq!(sealed.rows.rows, 2);
    assert_eq!(sealed.oldest_accepted_at, Some(at()));
}
