//! Records that are no events, written straight into the log as a foreign producer would.

use event_log::kafka::{KafkaConfig, KafkaProducer};
use event_log::{EventLogProducer as _, PartitionId, RecordBatch};
use std::time::Duration;
use tokio::runtime::Runtime;

const PARTITIONS: PartitionId = 12;
/// Longest wait for one record to be confirmed; above the log's own limit.
const LIMIT: Duration = Duration::from_secs(45);
/// A record that is nearly as large as Kafka takes.
const HUGE_BYTES: usize = 900_000;
const EVENT: &str = r#"{"v":1,"topic_epoch":1,"organization_id":"org_north","transaction_scope":"","transaction_id":"poison","external_customer_id":"c","external_subscription_id":"","code":"api_calls","timestamp":"2026-01-01T00:00:00.000Z","value":null,"properties":{},"accepted_at":"2026-01-01T00:00:00.000Z"}"#;

/// Writes to the topic past ingest-api.
pub struct Poisoner {
    producer: KafkaProducer,
    runtime: Runtime,
}

impl std::fmt::Debug for Poisoner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poisoner").finish_non_exhaustive()
    }
}

impl Poisoner {
    pub fn connect(brokers: &str) -> anyhow::Result<Self> {
        let producer = KafkaProducer::connect(&KafkaConfig::new(brokers))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { producer, runtime })
    }

    /// Writes `count` records, the kinds in turn from number `first` on; how many of them are
    /// certainly in the log. Of the others, each is there once or not at all.
    pub fn publish(&self, first: u64, count: u64) -> u64 {
        (first..first + count).map(|number| u64::from(self.publish_one(number))).sum()
    }

    fn publish_one(&self, number: u64) -> bool {
        let (key, value) = record(number);
        let partition =
            PartitionId::try_from(number % u64::from(PARTITIONS)).expect("12 partitions");
        let mut batch = RecordBatch::default();
        batch.push(
            |bytes| bytes.extend_from_slice(&key),
            |_| partition,
            |bytes| bytes.extend_from_slice(&value),
        );
        let published = self.producer.publish(batch);
        let confirmed =
            self.runtime.block_on(async { tokio::time::timeout(LIMIT, published).await });
        matches!(confirmed, Ok(Ok(())))
    }
}

/// The key and the value of a record that cannot become a row.
fn record(number: u64) -> (Vec<u8>, Vec<u8>) {
    let key = format!("poison-{number}").into_bytes();
    let value = match number % 7 {
        0 => b"not JSON".to_vec(),
        1 => b"[1,2,3]".to_vec(),
        2 => EVENT.as_bytes()[..EVENT.len() / 2].to_vec(),
        3 => Vec::new(),
        4 => b"{\"v\":1,\"code\":\"\xff\xfe\"}".to_vec(),
        // Its key is not that of the event in it.
        5 => EVENT.as_bytes().to_vec(),
        _ => vec![b'['; HUGE_BYTES],
    };
    (key, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_log::wire;

    #[test]
    fn no_kind_is_an_event_with_its_key() {
        for number in 0..7 {
            let (key, value) = record(number);
            if let Ok((event, _)) = wire::decode(&value) {
                assert_eq!(number, 5);
                let partition = PartitionId::try_from(number).unwrap();
                assert!(wire::check_record(partition, PARTITIONS, &key, &event).is_err());
            }
        }
        assert!(wire::decode(EVENT.as_bytes()).is_ok(), "the fifth kind fails for its key alone");
    }
}
