//! Prints what the log costs per event: CPU of this process (and of the broker), and the rate.
//!
//! `cargo run --release -p event-log --example log_cost -- embedded|kafka [events]`
//!
//! Events of about 400 bytes, 100 per batch, 64 batches under way; numbers are for comparing, not asserted.

use anyhow::{Context, bail};
use chrono::TimeDelta;
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions};
use event_log::kafka::{KafkaConfig, KafkaConsumer, KafkaProducer, ensure_topic};
use event_log::{EventLogConsumer, EventLogProducer, Polled, RecordBatch, wire};
use local_engines::kafka::{Kafka, KafkaOptions};
use metering::UsageEvent;
use metering::identity::partition_of;
use metering::properties::Properties;
use service_kit::clock::{Clock, SystemClock};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITIONS: u16 = 12;
const EVENTS_PER_BATCH: u32 = 100;
const BATCHES_UNDER_WAY: usize = 64;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let events = arguments.get(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    match arguments.first().map(String::as_str) {
        Some("embedded") => {
            let clock = Arc::new(SystemClock);
            let log =
                EmbeddedLog::open(EmbeddedLogOptions::new(directory.path(), PARTITIONS, clock))?;
            let consumer = log.consumer("cost")?;
            measure(events, Arc::new(log.producer()), Box::new(consumer), None)
        }
        Some("kafka") => {
            let kafka = Kafka::start(KafkaOptions::new(directory.path()))?;
            let config = KafkaConfig {
                replication_factor: 1,
                allow_single_replica: true,
                ..KafkaConfig::new(kafka.bootstrap())
            };
            runtime()?.block_on(ensure_topic(&config))?;
            let producer = Arc::new(KafkaProducer::connect(&config)?);
            let consumer = Box::new(KafkaConsumer::connect(&config)?);
            measure(events, producer, consumer, kafka.pid(0))
        }
        _ => bail!("say `embedded` or `kafka`, and how many events"),
    }
}

fn measure(
    events: u32,
    producer: Arc<dyn EventLogProducer>,
    mut consumer: Box<dyn EventLogConsumer>,
    broker: Option<u32>,
) -> anyhow::Result<()> {
    let encoding = Meter::start(None)?;
    let batches: VecDeque<RecordBatch> =
        (0..events / EVENTS_PER_BATCH).map(|n| encoded(n * EVENTS_PER_BATCH)).collect();
    let bytes: usize = batches.iter().map(RecordBatch::byte_len).sum();
    encoding.report("encode", events)?;
    report(&format!("{bytes} bytes in {events} events"));

    let producing = Meter::start(broker)?;
    runtime()?.block_on(publish_all(producer.as_ref(), batches))?;
    producing.report("publish", events)?;

    let consuming = Meter::start(broker)?;
    let mut fetched = Vec::new();
    let mut count = 0;
    while count < events {
        if let Polled::Records(records) = consumer.poll(Duration::from_secs(1))? {
            for records in records {
                count += u32::try_from(records.len())?;
                fetched.push(records);
            }
        }
    }
    consuming.report("consume", events)?;

    let decoding = Meter::start(None)?;
    for records in &fetched {
        for record in records.iter() {
            let (event, _) = wire::decode(record.value)?;
            wire::check_record(records.partition, PARTITIONS, record.key, &event)?;
        }
    }
    decoding.report("decode", events)
}

async fn publish_all(
    producer: &dyn EventLogProducer,
    batches: VecDeque<RecordBatch>,
) -> anyhow::Result<()> {
    let mut under_way = VecDeque::new();
    for batch in batches {
        if under_way.len() == BATCHES_UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            let oldest: event_log::PublishFuture = oldest;
            oldest.await?;
        }
        under_way.push_back(producer.publish(batch));
    }
    for publish in under_way {
        publish.await?;
    }
    Ok(())
}

fn encoded(first: u32) -> RecordBatch {
    let mut batch = RecordBatch::with_capacity(100, 48 * 1024);
    let at = SystemClock.now();
    for number in first..first + EVENTS_PER_BATCH {
        // Half of the text repeats and half does not, as in real events.
        let noise = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let properties = format!(
            r#"{{"region":"eu-west-1","method":"POST","path":"/v1/projects/{noise:x}/resources","trace":"{:032x}"}}"#,
            u128::from(noise) * 0xd6e8_feb8_6659_fd93
        );
        let event = UsageEvent {
            transaction_id: Cow::Owned(format!("{noise:016x}-{number:08}")),
            external_customer_id: Cow::Owned(format!("customer-{}", number % 1000)),
            timestamp: at - TimeDelta::milliseconds(i64::from(number % 5000)),
            properties: Properties::parse(&properties).expect("a small object"),
            ..UsageEvent::example()
        };
        batch.push(
            |out| event.write_identity_key(out),
            |key| partition_of(key, PARTITIONS),
            |out| wire::encode(&event, 1, out),
        );
    }
    batch
}

/// Wall time and CPU time since it was started.
struct Meter {
    started: Instant,
    broker: Option<u32>,
    own_ticks: u64,
    broker_ticks: u64,
}

impl Meter {
    fn start(broker: Option<u32>) -> anyhow::Result<Self> {
        let broker_ticks = broker.map_or(Ok(0), |pid| cpu_ticks(&pid.to_string()))?;
        Ok(Self { started: Instant::now(), broker, own_ticks: cpu_ticks("self")?, broker_ticks })
    }

    fn report(self, stage: &str, events: u32) -> anyhow::Result<()> {
        let wall = self.started.elapsed();
        let per_event = |ticks: u64| {
            // A tick is 10 ms: hundredths of a µs per event.
            let hundredths = ticks * 10_000 * 100 / u64::from(events);
            format!("{}.{:02} µs", hundredths / 100, hundredths % 100)
        };
        let own = per_event(cpu_ticks("self")? - self.own_ticks);
        let rate = u128::from(events) * 1000 / wall.as_millis().max(1);
        let mut line = format!("{stage}: {own} of CPU per event, {rate} events/s");
        if let Some(pid) = self.broker {
            let broker = per_event(cpu_ticks(&pid.to_string())? - self.broker_ticks);
            line.push_str(&format!(", broker {broker}"));
        }
        report(&line);
        Ok(())
    }
}

/// User and system time of a process, in ticks of 10 ms.
fn cpu_ticks(process: &str) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("the name of the process")?.1;
    let fields: Vec<_> = after_name.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[expect(clippy::print_stdout, reason = "printing is what it is for")]
fn report(line: &str) {
    println!("{line}");
}
