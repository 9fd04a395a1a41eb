//! Records that are no events: each is parked with its position, and none stops a partition.

use crate::bench::{Bench, PARTITIONS, event, owner};
use event_log::wire;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// The record of an event.
fn record(id: &str, epoch: u16) -> (u16, Vec<u8>, Vec<u8>) {
    let event = event(id, "a");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    event.write_identity_key(&mut key);
    wire::encode(&event, epoch, &mut value);
    (owner(&event), key, value)
}

#[test]
fn each_kind_of_poison_is_parked_with_its_reason() {
    let mut bench = Bench::new();
    let (partition, key, value) = record("t1", 1);
    let with = |partition: u16, key: &[u8], value: &[u8]| (partition, key.to_vec(), value.to_vec());
    let version = String::from_utf8(value.clone()).unwrap().replacen("\"v\":1", "\"v\":2", 1);
    bench.publish_raw(&[
        with(partition, &key, b"garbage"),
        with(partition, &key, b""),
        with(partition, b"", b""),
        with((partition + 1) % PARTITIONS, &key, &value),
        with(partition, b"another", &value),
        with(partition, &key, version.as_bytes()),
        with(partition, &key, &vec![b' '; 300_000]),
        with(partition, b"", &value),
    ]);
    let running = bench.start();
    bench.await_consumed();
    bench.stop(running).unwrap();
    assert_eq!(bench.billable(), ["t1 a"], "the good record behind them all is stored");
    let reasons = bench
        .lines("SELECT reason, count() FROM dead_letters FINAL GROUP BY reason ORDER BY reason");
    assert_eq!(
        reasons,
        [
            "empty_value 2",
            "malformed_json 1",
            "unknown_version 1",
            "value_too_large 1",
            "wrong_key 1",
            "wrong_partition 1"
        ]
    );
    let parked = "SELECT count() FROM dead_letters FINAL WHERE topic = 'usage.events' AND topic_epoch = 1 AND detail != ''";
    assert_eq!(bench.number(parked), 7);
}

/// Ten thousand random and damaged records with good ones between them.
#[test]
fn random_and_damaged_records_never_stop_a_partition() {
    let mut bench = Bench::new();
    let mut runner = TestRunner::deterministic();
    let mut draw = |count: usize| {
        prop::collection::vec(any::<u8>(), count).new_tree(&mut runner).unwrap().current()
    };
    let good: Vec<_> = (0..200).map(|id| record(&format!("t{id:03}"), 1)).collect();
    let mut records = Vec::new();
    for (number, (partition, key, value)) in good.iter().cycle().take(10_000).enumerate() {
        let dice = draw(5);
        let mut damaged = value.clone();
        let damaged = match dice[0] % 4 {
            0 => draw(usize::from(dice[1])),
            1 => damaged[..usize::from(dice[1]) % value.len()].to_vec(),
            _ => {
                let at = (usize::from(dice[1]) << 8 | usize::from(dice[2])) % value.len();
                damaged[at] ^= 1 << (dice[3] % 8);
                // A sound event of a later epoch is no poison: it stops the consumer, on purpose.
                let later = wire::decode(&damaged).is_ok_and(|(_, epoch)| epoch > 1);
                if later { value.clone() } else { damaged }
            }
        };
        records.push((*partition, key.clone(), damaged));
        if number % 50 == 0 {
            records.push(good[number / 50].clone());
        }
    }
    bench.publish_raw(&records);
    let running = bench.start();
    bench.await_consumed();
    running.health.live().unwrap();
    bench.stop(running).unwrap();
    let ids = "SELECT uniqExact(transaction_id), count() FROM billable_events";
    let lines = bench.lines(ids);
    let (unique, count) = lines[0].split_once(' ').unwrap();
    assert_eq!(unique, count, "no identity is billed twice");
    let missing = "SELECT count() FROM numbers(200) WHERE concat('t', leftPad(toString(number), 3, '0')) NOT IN (SELECT transaction_id FROM billable_events)";
    assert_eq!(bench.number(missing), 0);
    assert!(bench.number("SELECT count() FROM dead_letters FINAL") > 5_000);
}
