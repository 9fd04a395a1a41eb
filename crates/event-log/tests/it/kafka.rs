//! What only a real Kafka shows: rebalances, an absent broker, the topic's contract, foreign records.

use crate::support::{
    PATIENCE, Reader, Rig, batch, block_on, kafka_config, numbers, publish, shared_kafka,
    sorted_numbers,
};
use event_log::kafka::{KafkaConfig, KafkaConsumer, KafkaProducer, KafkaReader, ensure_topic};
use event_log::{EventLogProducer, EventLogReader, LogError, Offset, PartitionId, Polled};
use local_engines::kafka::{Kafka, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A topic on the shared broker, and its configuration.
fn topic() -> Option<(Rig, KafkaConfig)> {
    let rig = Rig::kafka()?;
    let Rig::Kafka { config } = &rig else { unreachable!("a Kafka rig") };
    let config = config.clone();
    Some((rig, config))
}

fn reader(config: &KafkaConfig) -> Reader {
    Reader { consumer: Box::new(KafkaConsumer::connect(config).unwrap()) }
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    client(brokers).create().unwrap()
}

/// Deletes the records of partition 0 below `offset`, as retention does.
fn delete_before(config: &KafkaConfig, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&config.topic, 0, KafkaOffset::Offset(offset)).unwrap();
    let admin = admin(&config.brokers);
    let deleted = block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    deleted.elements()[0].error().unwrap();
}

/// A member that commits all it reads, and fails the test when it is given what it must not be.
struct Member {
    reader: Reader,
    owned: BTreeMap<PartitionId, Offset>,
}

impl Member {
    fn join(config: &KafkaConfig) -> Self {
        Self { reader: reader(config), owned: BTreeMap::new() }
    }

    fn poll(&mut self, seen: &mut BTreeSet<u32>, committed: &mut BTreeSet<u32>) {
        match self.reader.consumer.poll(Duration::from_millis(20)).unwrap() {
            Polled::Idle => {}
            Polled::Assigned(assignments) => {
                assert!(self.owned.is_empty(), "an eager assignment follows a revocation");
                self.owned = assignments.iter().map(|a| (a.partition, a.start)).collect();
            }
            Polled::Revoked(partitions) => {
                assert_eq!(partitions, Vec::from_iter(self.owned.keys().copied()));
                for (partition, offset) in std::mem::take(&mut self.owned) {
                    let late = self.reader.consumer.commit(&[(partition, offset)]);
                    assert!(matches!(late, Err(LogError::Fenced)), "{late:?}");
                }
            }
            Polled::Records(fetched) => {
                let mut numbers = Vec::new();
                for records in &fetched {
                    let next = self.owned.get_mut(&records.partition).expect("it is ours");
                    for record in records.iter() {
                        assert_eq!(record.offset, *next, "in order, without gaps and repeats");
                        *next += 1;
                        numbers.push(std::str::from_utf8(record.value).unwrap().parse().unwrap());
                    }
                }
                for number in &numbers {
                    assert!(!committed.contains(number), "{number} was committed before");
                }
                seen.extend(&numbers);
                let next: Vec<_> = self.owned.iter().map(|(p, offset)| (*p, *offset)).collect();
                match self.reader.consumer.commit(&next) {
                    Ok(()) => committed.extend(&numbers),
                    Err(LogError::Fenced) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}

#[test]
fn members_share_the_partitions_and_lose_nothing() {
    let Some((rig, config)) = topic() else { return };
    let producer = rig.producer();
    let (mut seen, mut committed) = (BTreeSet::new(), BTreeSet::new());
    let mut members = vec![Member::join(&config)];
    let mut published = 0;
    for (joining, leaving, expected) in [(false, false, 1), (true, false, 2), (false, true, 1)] {
        if joining {
            members.push(Member::join(&config));
        }
        if leaving {
            members.remove(0);
        }
        let deadline = Instant::now() + PATIENCE;
        let settled = |members: &[Member]| {
            members.iter().map(|m| m.owned.len()).sum::<usize>() == 3
                && members.iter().filter(|m| !m.owned.is_empty()).count() == expected
        };
        // Publishing goes on during the rebalance, and for some rounds after it.
        let mut rounds_after = 0;
        while rounds_after < 20 || seen.len() < usize::try_from(published).unwrap() {
            assert!(Instant::now() < deadline, "{} of {published} were read", seen.len());
            if rounds_after < 20 {
                publish(&producer, numbers(published..published + 30)).unwrap();
                published += 30;
            }
            for member in &mut members {
                member.poll(&mut seen, &mut committed);
            }
            rounds_after += u32::from(settled(&members));
        }
    }
    assert_eq!(seen, BTreeSet::from_iter(0..published));
}

#[test]
fn a_second_member_of_the_same_name_ends_the_first() {
    let Some((_rig, config)) = topic() else { return };
    let config = KafkaConfig { group_instance_id: Some("one".to_owned()), ..config };
    let mut first = reader(&config);
    first.assigned();
    let mut second = reader(&config);
    second.assigned();
    assert!(matches!(first.error(), LogError::Permanent { .. }));
}

#[test]
fn a_consumer_that_was_never_polled_can_be_dropped() {
    let Some((_rig, config)) = topic() else { return };
    drop(reader(&config));
}

/// The rival's consumer died of this one.
#[test]
fn a_broker_that_was_away_for_16_seconds_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let started = Kafka::start(KafkaOptions::new(directory.path()));
    let Some(kafka) = local_engines::require_or_skip("Apache Kafka", started) else { return };
    let config = kafka_config(&kafka.bootstrap());
    block_on(ensure_topic(&config)).unwrap();
    let producer: Arc<dyn EventLogProducer> = Arc::new(KafkaProducer::connect(&config).unwrap());
    publish(&producer, numbers(0..30)).unwrap();
    let mut reader = reader(&config);
    reader.assigned();
    let mut read = reader.read(30);
    reader.consumer.commit(&[(0, 10), (1, 10), (2, 10)]).unwrap();

    kafka.kill(0).unwrap();
    let outage = Instant::now();
    let in_flight = producer.publish(numbers(30..60));
    while outage.elapsed() < Duration::from_secs(16) {
        assert_eq!(reader.poll(Duration::from_millis(200)).unwrap(), []);
    }
    assert!(producer.unready().is_some(), "the producer knows that the broker is away");
    kafka.restart(0).unwrap();

    let answered = block_on(in_flight);
    if answered.is_err() {
        publish(&producer, numbers(30..60)).unwrap();
    }
    publish(&producer, numbers(60..90)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while BTreeSet::from_iter(sorted_numbers(&read)).len() < 90 || producer.unready().is_some() {
        assert!(Instant::now() < deadline, "{:?}", sorted_numbers(&read));
        read.extend(reader.poll(Duration::from_millis(100)).unwrap());
    }
    if answered.is_ok() {
        assert_eq!(
            sorted_numbers(&read),
            Vec::from_iter(0..90),
            "an idempotent producer repeats nothing"
        );
    }
    reader.consumer.commit(&[(0, 20), (1, 20), (2, 20)]).unwrap();
}

#[test]
fn an_unreachable_broker_is_an_error_that_may_pass() {
    let config = KafkaConfig::new(format!("127.0.0.1:{}", local_engines::free_port()));
    assert!(matches!(block_on(ensure_topic(&config)), Err(LogError::Transient { .. })));
    let producer = KafkaProducer::connect(&config).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while producer.unready().is_none() {
        assert!(Instant::now() < deadline, "the producer does not notice");
        std::thread::yield_now();
    }
}

#[test]
fn a_topic_that_breaks_the_contract_is_refused_with_what_to_change() {
    let Some(brokers) = shared_kafka() else { return };
    let admin = admin(brokers);
    let refused = |config: &KafkaConfig| match block_on(ensure_topic(config)) {
        Err(LogError::Contract(text)) => text,
        other => panic!("{other:?}"),
    };
    let config = kafka_config(brokers);
    let mut topic = NewTopic::new(&config.topic, 2, TopicReplication::Fixed(1));
    topic = topic.set("cleanup.policy", "compact").set("unclean.leader.election.enable", "true");
    let made = block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok(), "{made:?}");
    let text = refused(&config);
    for expected in [
        "it has 2 partitions and 3 were configured",
        "message.timestamp.type is CreateTime; set LogAppendTime",
        "unclean.leader.election.enable is true; set false",
        "cleanup.policy is compact; set delete",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("replicas"), "a single one was allowed: {text}");

    let three = KafkaConfig { replication_factor: 3, ..kafka_config(brokers) };
    assert!(refused(&three).contains("cannot have 3 replicas"), "one broker has no room for 3");

    let config = kafka_config(brokers);
    block_on(ensure_topic(&config)).unwrap();
    block_on(ensure_topic(&config)).unwrap();
    let strict = KafkaConfig { allow_single_replica: false, ..config };
    let text = refused(&strict);
    assert!(text.contains("has 1 replicas; give every one at least 3"), "{text}");
    assert!(text.contains("min.insync.replicas is 1; set 2"), "{text}");
}

#[test]
fn records_of_other_clients_are_delivered_as_they_are() {
    let Some((_rig, config)) = topic() else { return };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let other: BaseProducer =
            client(&config.brokers).set("compression.type", codec).create().unwrap();
        let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("1") });
        let value = codec.repeat(200);
        let record = BaseRecord::<str, str>::to(&config.topic).partition(1);
        other.send(record.key("key").payload(&value).headers(headers)).map_err(|(e, _)| e).unwrap();
        let record = BaseRecord::<str, str>::to(&config.topic).partition(1);
        other.send(record.payload("no key")).map_err(|(e, _)| e).unwrap();
        let record = BaseRecord::<str, str>::to(&config.topic).partition(1);
        other.send(record.key("tombstone")).map_err(|(e, _)| e).unwrap();
        other.flush(PATIENCE).unwrap();
    }
    let mut reader = reader(&config);
    reader.assigned();
    let read = reader.read(15);
    let pairs: Vec<(&[u8], &[u8])> = read.iter().map(|r| (&*r.key, &*r.value)).collect();
    for (codec, pairs) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().zip(pairs.chunks(3)) {
        let value = codec.repeat(200);
        assert_eq!(pairs[0], (&b"key"[..], value.as_bytes()));
        assert_eq!(pairs[1..], [(&b""[..], &b"no key"[..]), (&b"tombstone"[..], &b""[..])]);
    }
}

#[test]
fn aborted_transactions_never_happened_and_their_markers_are_skipped() {
    let Some((rig, config)) = topic() else { return };
    let other: BaseProducer =
        client(&config.brokers).set("transactional.id", &config.topic).create().unwrap();
    other.init_transactions(PATIENCE).unwrap();
    for (number, commit) in [("1", true), ("2", false), ("3", true)] {
        other.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to(&config.topic).partition(0).payload(number);
        other.send(record).map_err(|(e, _)| e).unwrap();
        other.flush(PATIENCE).unwrap();
        if commit {
            other.commit_transaction(PATIENCE).unwrap();
        } else {
            other.abort_transaction(PATIENCE).unwrap();
        }
    }
    publish(&rig.producer(), batch([(0, "4")])).unwrap();
    let mut first = reader(&config);
    first.assigned();
    let read = first.read(3);
    let offsets: Vec<_> = read.iter().map(|read| (read.offset, read.number())).collect();
    assert_eq!(offsets, [(0, 1), (4, 3), (6, 4)]);
    // Between the marker and the next record nothing is missing, although the offsets have a gap.
    first.consumer.commit(&[(0, 5)]).unwrap();
    drop(first);
    let mut second = reader(&config);
    second.assigned();
    assert_eq!(sorted_numbers(&second.read(1)), [4]);
}

/// Both end the log within the range that is read: the marker is there, and the records are not.
#[test]
fn a_range_may_end_with_a_marker_and_never_behind_the_log() {
    let Some((_rig, config)) = topic() else { return };
    let other: BaseProducer =
        client(&config.brokers).set("transactional.id", &config.topic).create().unwrap();
    other.init_transactions(PATIENCE).unwrap();
    other.begin_transaction().unwrap();
    let record = BaseRecord::<str, str>::to(&config.topic).partition(0).payload("1");
    other.send(record).map_err(|(e, _)| e).unwrap();
    other.commit_transaction(PATIENCE).unwrap();
    let mut reader = KafkaReader::connect(&config).unwrap();
    // The broker writes the marker after it has confirmed the commit.
    let (high, deadline) = (2, std::time::Instant::now() + PATIENCE);
    while reader.watermarks(0).unwrap().high < high {
        assert!(std::time::Instant::now() < deadline, "the marker is written");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let scanned = reader.read(0, 0, high).unwrap();
    let offsets: Vec<_> = scanned.records.iter().map(|record| record.offset).collect();
    assert_eq!((offsets, scanned.next), (vec![0], high));
    let behind = reader.read(0, 0, high + 2).unwrap_err();
    assert!(matches!(behind, LogError::Transient { .. }), "{behind:?}");
}

#[test]
fn records_deleted_unread_are_an_error_at_the_start() {
    let Some((rig, config)) = topic() else { return };
    publish(&rig.producer(), batch((0..5).map(|n| (0, n.to_string())))).unwrap();
    let mut first = reader(&config);
    first.assigned();
    first.read(5);
    first.consumer.commit(&[(0, 1)]).unwrap();
    drop(first);
    delete_before(&config, 3);
    let error = reader(&config).error();
    let gap = LogError::Gap { partition: 0, expected: 1, low: 3 };
    assert_eq!(error.to_string(), gap.to_string());

    let group = format!("{}-other", config.group);
    let mut other = reader(&KafkaConfig { group, ..config });
    other.assigned();
    assert_eq!(sorted_numbers(&other.read(2)), [3, 4], "a new group starts at what is left");
}

#[test]
fn records_deleted_unread_are_an_error_on_the_way() {
    let Some((rig, config)) = topic() else { return };
    let producer = rig.producer();
    publish(&producer, batch([(0, "0"), (0, "1")])).unwrap();
    let mut reader = reader(&config);
    reader.assigned();
    reader.read(2);
    reader.consumer.pause(&[0]).unwrap();
    publish(&producer, batch((2..9).map(|n| (0, n.to_string())))).unwrap();
    delete_before(&config, 5);
    reader.consumer.resume(&[0]).unwrap();
    // What was fetched before the deletion may still come.
    let mut next = 2;
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "no error came");
        match reader.poll(Duration::from_millis(100)) {
            Ok(read) => {
                for read in read {
                    assert_eq!(read.offset, next, "no record was skipped in silence");
                    next += 1;
                }
                if next == 9 {
                    return;
                }
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Gap { partition: 0, low: 5, .. }), "{error}");
}

#[test]
fn a_log_that_ends_below_the_committed_offset_is_refused() {
    let Some((rig, config)) = topic() else { return };
    publish(&rig.producer(), batch([(0, "0")])).unwrap();
    let other: BaseConsumer =
        client(&config.brokers).set("group.id", &config.group).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&config.topic, 0, KafkaOffset::Offset(100)).unwrap();
    other.commit(&offsets, CommitMode::Sync).unwrap();
    drop(other);
    let error = reader(&config).error();
    assert!(matches!(&error, LogError::Contract(text) if text.contains("100")), "{error}");
}

#[test]
fn a_topic_that_grew_is_refused() {
    let Some((_rig, config)) = topic() else { return };
    let fewer = KafkaConfig { partitions: 2, ..config };
    assert!(matches!(reader(&fewer).error(), LogError::Contract(_)));
}

#[test]
fn a_full_queue_is_reported_at_once() {
    let port = local_engines::free_port();
    let producer = KafkaProducer::connect(&KafkaConfig::new(format!("127.0.0.1:{port}"))).unwrap();
    // Nobody takes them away: 100,000 records fit, and one more does not.
    let ten_thousand = || batch((0..10_000).map(|_| (0, "x")));
    let waiting: Vec<_> = (0..10).map(|_| producer.publish(ten_thousand())).collect();
    let refused = block_on(producer.publish(batch([(0, "x")])));
    assert!(matches!(refused, Err(event_log::PublishError::QueueFull)), "{refused:?}");
    let flushed = block_on(producer.flush(Duration::from_millis(10)));
    assert!(matches!(flushed, Err(event_log::PublishError::Unconfirmed(_))));
    drop(producer);
    for outcome in waiting {
        let outcome = block_on(outcome);
        assert!(matches!(outcome, Err(event_log::PublishError::Unconfirmed(_))), "{outcome:?}");
    }
}
