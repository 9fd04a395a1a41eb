//! What one event costs the consumer: decode, dedup and encode on one thread, and memory for each id.
//!
//! `cargo run --release -p event-consumer --example consumer_cost`

use event_consumer::batch::{Batch, BatchLimits, Tenure};
use event_consumer::decode::{Source, decode};
use event_consumer::dedup::{PartitionIndex, PositionOrder};
use event_consumer::partition::{Partition, Round};
use event_log::{FetchedRecords, wire};
use metering::properties::Properties;
use metering::{Quantity, UsageEvent};
use std::borrow::Cow;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 300;
const RECORDS: u64 = 10_000;

#[expect(clippy::print_stdout, reason = "what it measures is for its caller")]
#[expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "nothing here is billed")]
fn main() {
    let source = Source { topic: "usage.events".to_owned(), epoch: 1, partition_count: 1 };
    let tenure = Tenure { partition: 0, generation: 1 };
    let mut partition = Partition::new(tenure, 0, Some(PartitionIndex::new(PositionOrder::new(1))));
    let mut batch = Batch::new(BatchLimits { rows: 100_000, ..BatchLimits::default() });
    let (mut key, mut bytes, mut sealed_bytes) = (Vec::new(), 0, 0);
    let (mut decoding, mut deciding, mut sealing) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let now = Instant::now();
    for round in 0..ROUNDS {
        let records = records(round);
        bytes += records.byte_len();
        let start = cpu_time();
        for record in records.iter() {
            std::hint::black_box(decode(&source, 0, &record, &mut key).expect("an event"));
        }
        decoding += cpu_time() - start;
        partition.receive(records);
        let start = cpu_time();
        let at = UsageEvent::example().accepted_at;
        partition
            .decide_backlog(
                &mut batch,
                &mut Round { source: &source, at, at_latest: at, now, key: &mut key },
            )
            .expect("the log is whole");
        deciding += cpu_time() - start;
        if batch.is_full() {
            let start = cpu_time();
            sealed_bytes += batch.seal(&source, at).rows.bytes.len();
            sealing += cpu_time() - start;
        }
    }
    let events = ROUNDS * RECORDS;
    let index = partition.index().expect("it was given one");
    let per_event = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    println!("events                  {events} in records of {} bytes", bytes as u64 / events);
    println!("rows                    {} bytes each", sealed_bytes as u64 / events);
    println!("decode alone            {:.3} µs of CPU per event", per_event(decoding));
    println!("decode, dedup, encode   {:.3} µs of CPU per event", per_event(deciding));
    println!("seal (join, hash)       {:.3} µs of CPU per event", per_event(sealing));
    println!(
        "remembered ids          {} of {:.1} bytes",
        index.len(),
        index.allocated_bytes() as f64 / index.len() as f64
    );
}

/// Consecutive records, one in a hundred of which is a copy of an earlier one.
fn records(round: u64) -> FetchedRecords {
    let mut records = FetchedRecords::new(0);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for offset in round * RECORDS..(round + 1) * RECORDS {
        let id = if offset % 100 == 99 { offset / 2 } else { offset };
        let event = UsageEvent {
            transaction_id: Cow::Owned(format!("01890a5d-ac96-774b-bcce-{id:012x}")),
            external_customer_id: Cow::Owned(format!("customer-{:05}", id % 10_000)),
            code: Cow::Borrowed("tokens"),
            value: Quantity::parse("1250").ok(),
            properties: Properties::parse(
                r#"{"model":"large-4","region":"eu-west-1","tokens":1250,"cached":false}"#,
            )
            .expect("a small object"),
            ..UsageEvent::example()
        };
        key.clear();
        value.clear();
        event.write_identity_key(&mut key);
        wire::encode(&event, 1, &mut value);
        records.push(offset, &key, &value);
    }
    records
}

/// CPU time of this thread: other work on the machine does not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds on the CPU"))
}
