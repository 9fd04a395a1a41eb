use super::*;
use crate::batch::BatchLimits;
use crate::dedup::PositionOrder;
use event_log::wire;
use metering::UsageEvent;
use std::borrow::Cow;

const TENURE: Tenure = Tenure { partition: 0, generation: 1 };

fn value(id: u32, customer: &str) -> Vec<u8> {
    let event = UsageEvent {
        transaction_id: Cow::Owned(id.to_string()),
        external_customer_id: Cow::Borrowed(customer),
        ..UsageEvent::example()
    };
    let mut value = Vec::new();
    wire::encode(&event, 1, &mut value);
    value
}

fn records(values: impl IntoIterator<Item = (Offset, Vec<u8>)>) -> FetchedRecords {
    let mut records = FetchedRecords::new(0);
    for (offset, value) in values {
        records.push(offset, b"", &value);
    }
    records
}

fn partition(next: Offset) -> Partition {
    Partition::new(TENURE, next, Some(PartitionIndex::new(PositionOrder::new(1))))
}

fn batch(rows: usize) -> Batch {
    Batch::new(BatchLimits { rows, ..BatchLimits::default() })
}

fn decide(partition: &mut Partition, batch: &mut Batch) -> Result<(), Halt> {
    let source = Source { topic: "t".to_owned(), epoch: 1, partition_count: 1 };
    let at = UsageEvent::example().accepted_at;
    partition.decide_backlog(
        batch,
        &mut Round {
            source: &source,
            at,
            at_latest: at,
            now: Instant::now(),
            key: &mut Vec::new(),
        },
    )
}

fn sealed(batch: &mut Batch) -> crate::batch::SealedBatch {
    let source = Source { topic: "t".to_owned(), epoch: 1, partition_count: 1 };
    batch.seal(&source, UsageEvent::example().accepted_at)
}

#[test]
fn a_full_batch_ends_a_round_and_the_next_goes_on_behind_it() {
    let mut partition = partition(0);
    partition.receive(records((0..5).map(|offset| (offset, value(7, "same")))));
    partition.receive(records(
        (5..10).map(|offset| (offset, value(u32::try_from(offset).unwrap(), "a"))),
    ));
    let mut batch = batch(3);
    decide(&mut partition, &mut batch).unwrap();
    assert!(partition.has_work() && batch.is_full());
    assert_eq!(partition.next(), 7, "offsets 0, 5 and 6 are first copies");
}

#[test]
fn nothing_is_decided_before_the_index_is_there() {
    let mut partition = Partition::new(TENURE, 0, None);
    partition.receive(records([(0, value(1, "a"))]));
    let mut batch = batch(3);
    decide(&mut partition, &mut batch).unwrap();
    assert!(batch.is_empty() && !partition.has_work() && partition.backlog_bytes() > 0);
    partition.set_index(PartitionIndex::new(PositionOrder::new(1)));
    decide(&mut partition, &mut batch).unwrap();
    assert_eq!((partition.next(), partition.backlog_bytes()), (1, 0));
}

#[test]
fn a_record_that_comes_twice_counts_once() {
    let mut partition = partition(0);
    let mut batch = batch(9);
    for first in [0, 1, 0] {
        partition.receive(records(
            (first..3).map(|offset| (offset, value(u32::try_from(offset).unwrap(), "a"))),
        ));
    }
    decide(&mut partition, &mut batch).unwrap();
    let tally = sealed(&mut batch).tally;
    assert_eq!((tally.stored, tally.records()), (3, 3));
}

#[test]
fn a_conflict_keeps_its_payload_and_points_to_the_first_copy() {
    let mut partition = partition(40);
    let mut batch = batch(9);
    partition.receive(records([
        (40, value(1, "first")),
        (41, value(1, "first")),
        (45, value(1, "other")),
    ]));
    decide(&mut partition, &mut batch).unwrap();
    let sealed = sealed(&mut batch);
    assert_eq!((sealed.tally.stored, sealed.tally.duplicates, sealed.tally.conflicts), (1, 1, 1));
    let row = sealed.conflicts[0].row();
    assert_eq!((row.position.offset, row.first_epoch, row.first_offset), (45, 1, 40));
    assert_eq!(row.event.external_customer_id, "other");
    let first = value(1, "first");
    let first = wire::decode(&first).unwrap().0.payload_fingerprint();
    assert_eq!(row.first_payload_fingerprint, first & ((1 << 40) - 1));
}

#[test]
fn a_log_that_was_created_anew_under_its_old_epoch_is_noticed() {
    let mut partition = partition(0);
    let known = metering::identity::identity_hash(b"8:org_demo,0:,1:1,");
    let index = partition.index_mut().unwrap();
    let place = index.order().current(90);
    let at = UsageEvent::example().accepted_at;
    index.decide(&Copy { hash: known, place, fingerprint: 0, accepted_at: at, decided_at: at });
    partition.receive(records([(3, value(1, "a"))]));
    let mut batch = batch(9);
    let error = decide(&mut partition, &mut batch).unwrap_err();
    let rewritten = LogRewritten { partition: 0, offset: 3, known_epoch: 1, known_offset: 90 };
    assert_eq!(error, Halt::LogRewritten(rewritten));
    assert!(batch.is_empty());
}
