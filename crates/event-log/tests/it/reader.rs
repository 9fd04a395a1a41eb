//! Reading ranges outside of a group, on both transports, beside those who use the log.

use crate::support::on_both_transports;
use crate::support::{PARTITIONS, Rig, embedded_options, numbers, publish};
use chrono::TimeDelta;
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions, EmbeddedReader};
use event_log::kafka::{KafkaConfig, KafkaReader};
use event_log::{EventLogReader, LogError, Offset, Watermarks};
use service_kit::clock::{Clock, FixedClock, SystemClock};
use std::sync::Arc;

on_both_transports!(
    a_range_is_read_whole_and_nothing_beyond_it,
    a_longer_range_is_read_after_the_end_was_reached,
    reading_moves_no_offset_and_sees_those_of_the_group,
    a_time_is_found_without_a_group,
);

fn reader(rig: &Rig) -> Box<dyn EventLogReader> {
    match rig {
        Rig::Embedded { .. } => Box::new(EmbeddedReader::open(rig.path(), "a").unwrap()),
        Rig::Kafka { config } => {
            let group = format!("{}-a", config.topic);
            Box::new(KafkaReader::connect(&KafkaConfig { group, ..config.clone() }).unwrap())
        }
    }
}

/// The offsets of a range, by as many reads as it takes.
fn offsets(reader: &mut dyn EventLogReader, from: Offset, until: Offset) -> Vec<Offset> {
    let (mut next, mut offsets) = (from, Vec::new());
    while next < until {
        let scanned = reader.read(0, next, until).unwrap();
        assert!(scanned.next > next, "reading goes on");
        offsets.extend(scanned.records.iter().map(|record| record.offset));
        next = scanned.next;
    }
    offsets
}

fn a_range_is_read_whole_and_nothing_beyond_it(rig: &Rig) {
    let producer = rig.producer();
    for start in (0..900).step_by(90) {
        publish(&producer, numbers(start..start + 90)).unwrap();
    }
    let mut reader = reader(rig);
    assert_eq!(reader.partition_count(), PARTITIONS);
    assert_eq!(reader.watermarks(0).unwrap(), Watermarks { low: 0, high: 300 });
    for (from, until) in [(0, 300), (0, 1), (7, 41), (299, 300), (50, 50), (0, 300)] {
        let expected: Vec<_> = (from..until).collect();
        assert_eq!(offsets(reader.as_mut(), from, until), expected, "{from}..{until}");
    }
    let scanned = reader.read(1, 3, 4).unwrap();
    let record = scanned.records.iter().next().unwrap();
    assert_eq!((record.offset, record.value), (3, b"10".as_slice()));
}

fn a_longer_range_is_read_after_the_end_was_reached(rig: &Rig) {
    let producer = rig.producer();
    let mut reader = {
        publish(&producer, numbers(0..30)).unwrap();
        reader(rig)
    };
    for round in 1..4 {
        let end = round * 10;
        assert_eq!(reader.watermarks(0).unwrap().high, end);
        assert_eq!(
            offsets(reader.as_mut(), end - 10, end),
            (end - 10..end).collect::<Vec<_>>(),
            "the end of an earlier range is not the end of this one"
        );
        publish(&producer, numbers(0..30)).unwrap();
    }
}

fn reading_moves_no_offset_and_sees_those_of_the_group(rig: &Rig) {
    publish(&rig.producer(), numbers(0..90)).unwrap();
    let mut member = rig.consumer("a");
    member.assigned();
    member.read(90);
    let mut reader = reader(rig);
    assert_eq!(reader.committed(0).unwrap(), None);
    member.consumer.commit(&[(0, 12)]).unwrap();
    offsets(reader.as_mut(), 0, 30);
    assert_eq!(reader.committed(0).unwrap(), Some(12));
    assert_eq!(member.consumer.committed(0).unwrap(), Some(12));
}

fn a_time_is_found_without_a_group(rig: &Rig) {
    publish(&rig.producer(), numbers(0..30)).unwrap();
    let mut reader = reader(rig);
    let now = SystemClock.now();
    assert_eq!(reader.offset_for_time(0, now - TimeDelta::hours(1)).unwrap(), 0);
    assert_eq!(reader.offset_for_time(0, now + TimeDelta::hours(1)).unwrap(), 10);
}

#[test]
fn a_closed_log_can_be_read_and_an_absent_one_is_named() {
    let rig = Rig::embedded();
    publish(&rig.producer(), numbers(0..30)).unwrap();
    rig.close();
    let mut reader = reader(&rig);
    assert_eq!(offsets(reader.as_mut(), 2, 9), [2, 3, 4, 5, 6, 7, 8]);
    assert!(matches!(reader.watermarks(PARTITIONS), Err(LogError::Permanent { .. })));
    let empty = tempfile::tempdir().unwrap();
    let absent = EmbeddedReader::open(empty.path(), "a").unwrap_err();
    assert!(absent.to_string().contains("there is no embedded log"), "{absent}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn what_retention_deleted_is_a_gap() {
    let rig = Rig::embedded();
    let clock = FixedClock::new(SystemClock.now());
    let options =
        EmbeddedLogOptions { clock: Arc::new(clock.clone()), ..embedded_options(rig.path()) };
    let log = EmbeddedLog::open(options).unwrap();
    let producer: Arc<dyn event_log::EventLogProducer> = Arc::new(log.producer());
    let mut member = crate::support::Reader { consumer: Box::new(log.consumer("a").unwrap()) };
    publish(&producer, numbers(0..90)).unwrap();
    member.assigned();
    member.read(90);
    let mut reader = EmbeddedReader::open(rig.path(), "a").unwrap();
    member.consumer.commit(&[(0, 30), (1, 30), (2, 30)]).unwrap();
    clock.set(clock.now() + TimeDelta::days(2));
    log.sweep().unwrap();
    assert_eq!(reader.watermarks(0).unwrap(), Watermarks { low: 30, high: 30 });
    let gone = reader.read(0, 10, 20).unwrap_err();
    assert!(matches!(gone, LogError::Gap { partition: 0, expected: 10, low: 30 }), "{gone:?}");
}

#[test]
fn another_partition_count_and_an_absent_topic_are_refused() {
    let Some(Rig::Kafka { config }) = Rig::kafka() else { return };
    let message = |config: KafkaConfig| KafkaReader::connect(&config).unwrap_err().to_string();
    let other = message(KafkaConfig { partitions: PARTITIONS + 1, ..config.clone() });
    assert!(other.contains("has 3 partitions and 4 were configured"), "{other}");
    let absent = message(KafkaConfig { topic: "absent".to_owned(), ..config });
    assert!(absent.contains("there is no topic `absent`"), "{absent}");
}
