//! What every transport keeps: one test body, run on each of them.

use crate::support::on_both_transports;
use crate::support::{
    PARTITIONS, Read, Rig, batch, block_on, numbers, partition_of, publish, sorted_numbers,
};
use event_log::{LogError, Offset, RecordBatch, Watermarks};
use service_kit::clock::{Clock, SystemClock};
use std::collections::BTreeMap;
use std::time::Duration;

on_both_transports!(
    records_come_back_in_order_with_ascending_offsets,
    records_published_before_the_first_start_are_read,
    publishing_again_appends_again_to_the_same_partition,
    a_restarted_consumer_goes_on_where_it_committed,
    what_was_not_committed_comes_again,
    groups_read_independently,
    a_paused_partition_is_silent_and_loses_nothing,
    watermarks_span_what_can_be_read,
    a_time_is_found_in_the_log,
    nothing_can_be_committed_that_was_not_read,
    an_empty_batch_is_durable_at_once,
    the_largest_values_and_batches_fit,
    concurrent_publishers_lose_and_repeat_nothing,
    flushing_waits_for_what_was_published,
    a_waiting_poll_is_woken_by_a_publish,
);

fn records_come_back_in_order_with_ascending_offsets(rig: &Rig) {
    let producer = rig.producer();
    assert_eq!(producer.partition_count(), PARTITIONS);
    for start in (0..600).step_by(100) {
        publish(&producer, numbers(start..start + 100)).unwrap();
    }
    let mut reader = rig.consumer("a");
    reader.assigned();
    let mut by_partition: BTreeMap<_, Vec<Read>> = BTreeMap::new();
    for read in reader.read(600) {
        assert_eq!(read.key, read.value);
        by_partition.entry(read.partition).or_default().push(read);
    }
    for partition in 0..PARTITIONS {
        let expected: Vec<(Offset, u32)> =
            (0..).zip((0..600).filter(|n| partition_of(*n) == partition)).collect();
        let read: Vec<_> =
            by_partition[&partition].iter().map(|read| (read.offset, read.number())).collect();
        assert_eq!(read, expected, "partition {partition}");
    }
}

fn records_published_before_the_first_start_are_read(rig: &Rig) {
    publish(&rig.producer(), numbers(0..9)).unwrap();
    let mut reader = rig.consumer("a");
    let starts: Vec<_> = reader.assigned().iter().map(|a| (a.partition, a.start)).collect();
    assert_eq!(starts, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(sorted_numbers(&reader.read(9)), Vec::from_iter(0..9));
}

fn publishing_again_appends_again_to_the_same_partition(rig: &Rig) {
    let producer = rig.producer();
    publish(&producer, numbers(0..6)).unwrap();
    publish(&producer, numbers(0..6)).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    let read = reader.read(12);
    assert_eq!(sorted_numbers(&read), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert!(read.iter().all(|read| read.partition == partition_of(read.number())));
}

fn a_restarted_consumer_goes_on_where_it_committed(rig: &Rig) {
    let producer = rig.producer();
    publish(&producer, numbers(0..9)).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(9);
    assert_eq!(reader.consumer.committed(1).unwrap(), None);
    reader.consumer.commit(&[(0, 3), (1, 2)]).unwrap();
    assert_eq!(reader.consumer.committed(1).unwrap(), Some(2));
    drop(reader);
    publish(&producer, numbers(9..12)).unwrap();

    let mut reader = rig.consumer("a");
    let starts: Vec<_> = reader.assigned().iter().map(|a| (a.partition, a.start)).collect();
    assert_eq!(starts, [(0, 3), (1, 2), (2, 0)]);
    // Partition 0 brings 9; partition 1 brings 7 and 10; partition 2 everything.
    assert_eq!(sorted_numbers(&reader.read(7)), [2, 5, 7, 8, 9, 10, 11]);
}

fn what_was_not_committed_comes_again(rig: &Rig) {
    publish(&rig.producer(), numbers(0..9)).unwrap();
    for _ in 0..2 {
        let mut reader = rig.consumer("a");
        reader.assigned();
        assert_eq!(sorted_numbers(&reader.read(9)), Vec::from_iter(0..9));
    }
}

fn groups_read_independently(rig: &Rig) {
    publish(&rig.producer(), numbers(0..9)).unwrap();
    let (mut first, mut second) = (rig.consumer("a"), rig.consumer("b"));
    first.assigned();
    first.read(9);
    first.consumer.commit(&[(0, 3), (1, 3), (2, 3)]).unwrap();
    second.assigned();
    assert_eq!(second.consumer.committed(0).unwrap(), None);
    assert_eq!(sorted_numbers(&second.read(9)), Vec::from_iter(0..9));
}

fn a_paused_partition_is_silent_and_loses_nothing(rig: &Rig) {
    let producer = rig.producer();
    publish(&producer, numbers(0..300)).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    let mut read = reader.read_at_least(1);
    for round in 1..4 {
        reader.consumer.pause(&[0, 1]).unwrap();
        publish(&producer, numbers(round * 300..(round + 1) * 300)).unwrap();
        let meanwhile = reader.read_until_quiet();
        assert!(meanwhile.iter().all(|read| read.partition == 2), "a paused partition spoke");
        read.extend(meanwhile);
        reader.consumer.resume(&[0, 1]).unwrap();
        read.extend(reader.poll(Duration::from_millis(100)).unwrap());
    }
    read.extend(reader.read(1200 - read.len()));
    assert_eq!(sorted_numbers(&read), Vec::from_iter(0..1200));
}

fn watermarks_span_what_can_be_read(rig: &Rig) {
    let mut reader = rig.consumer("a");
    reader.assigned();
    assert_eq!(reader.consumer.watermarks(1).unwrap(), Watermarks { low: 0, high: 0 });
    publish(&rig.producer(), batch((0..5).map(|n| (1, n.to_string())))).unwrap();
    assert_eq!(reader.consumer.watermarks(1).unwrap(), Watermarks { low: 0, high: 5 });
    assert_eq!(reader.consumer.watermarks(2).unwrap(), Watermarks { low: 0, high: 0 });
    assert!(reader.consumer.watermarks(PARTITIONS).is_err());
}

fn a_time_is_found_in_the_log(rig: &Rig) {
    let producer = rig.producer();
    let before = SystemClock.now();
    publish(&producer, batch([(1, "a"), (1, "b")])).unwrap();
    // The next batch gets a later millisecond, so that a time lies between them.
    let appended = SystemClock.now() + Duration::from_millis(1);
    while SystemClock.now() < appended {
        std::thread::yield_now();
    }
    publish(&producer, batch([(1, "c")])).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    let mut offset = |at| reader.consumer.offset_for_time(1, at).unwrap();
    assert_eq!(offset(before), 0);
    assert_eq!(offset(appended), 2);
    assert_eq!(offset(SystemClock.now() + Duration::from_secs(3600)), 3);
    assert_eq!(reader.consumer.offset_for_time(2, before).unwrap(), 0, "an empty partition");
}

fn nothing_can_be_committed_that_was_not_read(rig: &Rig) {
    publish(&rig.producer(), batch([(0, "a"), (0, "b")])).unwrap();
    let mut reader = rig.consumer("a");
    let not_ours = reader.consumer.commit(&[(0, 1)]);
    assert!(matches!(not_ours, Err(LogError::Fenced)), "{not_ours:?}");
    reader.assigned();
    assert!(matches!(reader.consumer.commit(&[(0, 1)]), Err(LogError::Permanent { .. })));
    reader.read(2);
    assert!(matches!(reader.consumer.commit(&[(0, 3)]), Err(LogError::Permanent { .. })));
    assert!(matches!(reader.consumer.commit(&[(PARTITIONS, 0)]), Err(LogError::Fenced)));
    assert_eq!(reader.consumer.committed(0).unwrap(), None);
    reader.consumer.commit(&[(0, 2)]).unwrap();
    reader.consumer.commit(&[]).unwrap();
    assert_eq!(reader.consumer.committed(0).unwrap(), Some(2));
}

fn an_empty_batch_is_durable_at_once(rig: &Rig) {
    publish(&rig.producer(), RecordBatch::default()).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(0);
}

fn the_largest_values_and_batches_fit(rig: &Rig) {
    let producer = rig.producer();
    let large: Vec<u8> = (0..event_log::wire::VALUE_BYTES_MAX)
        .map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 7 & 0xff).unwrap())
        .collect();
    publish(&producer, batch([(1, &large)])).unwrap();
    publish(&producer, numbers(0..10_000)).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    let mut read = reader.read(10_001);
    let at = read.iter().position(|read| read.value.len() == large.len()).unwrap();
    assert_eq!(read.remove(at).value, large);
    assert_eq!(sorted_numbers(&read), Vec::from_iter(0..10_000));
}

fn concurrent_publishers_lose_and_repeat_nothing(rig: &Rig) {
    let producer = rig.producer();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let producer = &producer;
            scope.spawn(move || {
                for start in (0..1000).step_by(50) {
                    let start = thread * 1000 + start;
                    publish(producer, numbers(start..start + 50)).unwrap();
                }
            });
        }
    });
    let mut reader = rig.consumer("a");
    reader.assigned();
    let read = reader.read(4000);
    assert_eq!(sorted_numbers(&read), Vec::from_iter(0..4000));
    for thread in 0..4 {
        for partition in 0..PARTITIONS {
            let own =
                read.iter().filter(|r| r.partition == partition && r.number() / 1000 == thread);
            let own: Vec<_> = own.map(|read| (read.offset, read.number())).collect();
            assert!(own.is_sorted(), "the order of one publisher is kept");
        }
    }
}

fn flushing_waits_for_what_was_published(rig: &Rig) {
    let producer = rig.producer();
    let mut outcomes: Vec<_> =
        (0..10).map(|n| producer.publish(numbers(n * 30..n * 30 + 30))).collect();
    block_on(producer.flush(Duration::from_secs(30))).unwrap();
    for outcome in &mut outcomes {
        let ready = block_on(async { tokio::time::timeout(Duration::ZERO, outcome).await });
        ready.expect("flushed before it returned").unwrap();
    }
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(300);
}

fn a_waiting_poll_is_woken_by_a_publish(rig: &Rig) {
    let producer = rig.producer();
    publish(&producer, numbers(0..3)).unwrap();
    let mut reader = rig.consumer("a");
    reader.assigned();
    reader.read(3);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || reader.poll(Duration::from_secs(60)).unwrap());
        publish(&producer, batch([(1, "9")])).unwrap();
        assert_eq!(sorted_numbers(&waiting.join().unwrap()), [9]);
    });
}
