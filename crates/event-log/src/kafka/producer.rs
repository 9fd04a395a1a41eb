//! The writing end on Kafka: idempotent, acknowledged by all in-sync replicas, never waiting for room.

use super::{KafkaConfig, classify, log_error, log_line};
use crate::{EventLogProducer, LogError, PublishError, PublishFuture, RecordBatch, wire};
use fault_injection::{Sabotage, sabotaged};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

const SETTINGS: [(&str, &str); 13] = [
    // A record is acknowledged once every in-sync replica has it; a retried one is stored once.
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight.requests.per.connection", "5"),
    // After that the request is answered 503. Longer would only hold requests that clients gave up.
    ("message.timeout.ms", "30000"),
    ("request.timeout.ms", "10000"),
    ("socket.timeout.ms", "10000"),
    // The bound of what waits for the brokers; beyond it requests are refused at once.
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "100000"),
    // Measured best for the processor at 100,000 records/s; also what an acknowledgement costs.
    ("linger.ms", "5"),
    ("batch.num.messages", "10000"),
    ("message.max.bytes", "1000000"),
    ("compression.type", "lz4"),
    // Tells whether a broker is connected. The report is long, hence rare.
    ("statistics.interval.ms", "5000"),
];

/// Publishes to the topic. Clones share one librdkafka client.
#[derive(Clone)]
pub struct KafkaProducer {
    producer: Arc<ThreadedProducer<Deliveries>>,
    topic: Arc<str>,
    partitions: u16,
}

impl KafkaProducer {
    /// Starts a client; connections are made in the background. See [`super::ensure_topic`] first.
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client(&SETTINGS)?;
        if sabotaged(Sabotage::NoIdempotence) {
            client.set("enable.idempotence", "false");
        }
        let producer = ThreadedProducer::from_config_and_context(&client, Deliveries::default())
            .map_err(|error| classify("starting the Kafka producer", error))?;
        let topic = Arc::from(config.topic.as_str());
        Ok(Self { producer: Arc::new(producer), topic, partitions: config.partitions })
    }

    fn deliveries(&self) -> &Arc<Deliveries> {
        self.producer.client().context()
    }

    /// Hands every record to librdkafka's queue, which copies it.
    fn enqueue(&self, batch: &RecordBatch, ack: &Arc<RequestAck>) -> Result<(), PublishError> {
        for (queued, record) in batch.iter().enumerate() {
            let mut message = BaseRecord::with_opaque_to(&self.topic, Arc::clone(ack))
                .partition(i32::from(record.partition))
                .key(record.key)
                .payload(record.value);
            if sabotaged(Sabotage::RecordTimeIsEventTime)
                && let Ok((event, _)) = wire::decode(record.value)
            {
                message = message.timestamp(event.timestamp.timestamp_millis());
            }
            if let Err((error, _)) = self.producer.send(message) {
                // No report will come for this record and those after it.
                ack.settle(batch.len() - queued, self.deliveries());
                return Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => PublishError::QueueFull,
                    Some(RDKafkaErrorCode::Fatal) => PublishError::Fatal(error.into()),
                    _ => PublishError::Unconfirmed(error.into()),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { producer: _, topic, partitions } = self;
        f.debug_struct("KafkaProducer")
            .field("topic", topic)
            .field("partitions", partitions)
            .finish()
    }
}

impl EventLogProducer for KafkaProducer {
    fn partition_count(&self) -> u16 {
        self.partitions
    }

    fn publish(&self, batch: RecordBatch) -> PublishFuture {
        let deliveries = self.deliveries();
        if let Some(reason) = deliveries.fatal.get() {
            let error = PublishError::Fatal(reason.clone().into());
            return Box::pin(std::future::ready(Err(error)));
        }
        if batch.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (done, outcome) = oneshot::channel();
        let ack = Arc::new(RequestAck::new(batch.len(), done));
        deliveries.requests.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.enqueue(&batch, &ack) {
            return Box::pin(std::future::ready(Err(error)));
        }
        Box::pin(async move {
            outcome.await.unwrap_or_else(|_| {
                Err(PublishError::Unconfirmed("the producer was closed".into()))
            })
        })
    }

    fn unready(&self) -> Option<String> {
        let deliveries = self.deliveries();
        if let Some(reason) = deliveries.fatal.get() {
            return Some(format!("the Kafka producer failed for good: {reason}"));
        }
        deliveries
            .disconnected
            .load(Ordering::Relaxed)
            .then(|| "no Kafka broker is connected".to_owned())
    }

    fn flush(
        &self,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
        Box::pin(async move {
            let deliveries = self.deliveries();
            let all_settled = async {
                loop {
                    let settled = deliveries.settled.notified();
                    if deliveries.requests.load(Ordering::Acquire) == 0 {
                        return;
                    }
                    settled.await;
                }
            };
            tokio::time::timeout(limit, all_settled).await.map_err(|_| {
                let detail = format!("records were not acknowledged after {limit:?}");
                PublishError::Unconfirmed(detail.into())
            })
        })
    }
}

/// Counts the reports of one request's records and wakes the request once, with the last of them.
struct RequestAck {
    unsettled: AtomicUsize,
    failure: OnceLock<KafkaError>,
    done: Mutex<Option<oneshot::Sender<Result<(), PublishError>>>>,
}

impl RequestAck {
    fn new(records: usize, done: oneshot::Sender<Result<(), PublishError>>) -> Self {
        Self {
            unsettled: AtomicUsize::new(records),
            failure: OnceLock::new(),
            done: Mutex::new(Some(done)),
        }
    }

    fn settle(&self, records: usize, deliveries: &Deliveries) {
        let before = self.unsettled.fetch_sub(records, Ordering::AcqRel);
        debug_assert!(before >= records, "a record is reported once");
        if before > records {
            return;
        }
        let outcome = match self.failure.get() {
            None => Ok(()),
            Some(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => {
                Err(PublishError::Fatal(error.clone().into()))
            }
            Some(error) => Err(PublishError::Unconfirmed(error.clone().into())),
        };
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The request may have timed out; its records are as durable as said.
            done.send(outcome).ok();
        }
        deliveries.request_settled();
    }
}

/// Receives librdkafka's delivery reports, on its polling thread.
#[derive(Debug, Default)]
struct Deliveries {
    /// Requests with unsettled records.
    requests: AtomicUsize,
    settled: Notify,
    /// Why nothing can ever be published again.
    fatal: OnceLock<String>,
    disconnected: AtomicBool,
}

impl Deliveries {
    fn request_settled(&self) {
        if self.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_waiters();
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<RequestAck>;

    fn delivery(&self, result: &DeliveryResult<'_>, ack: Arc<RequestAck>) {
        if let Err((error, _)) = result {
            ack.failure.set(error.clone()).ok();
        }
        ack.settle(1, self);
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::error!(reason, "the kafka producer failed for good");
            self.fatal.set(reason.to_owned()).ok();
            return;
        }
        log_error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // A report that cannot be read says nothing about the brokers.
        if let Ok(report) = serde_json::from_slice::<Report<'_>>(statistics) {
            self.disconnected.store(!report.is_connected(), Ordering::Relaxed);
        }
    }
}

/// The part of librdkafka's statistics that tells whether a broker is connected.
#[derive(Deserialize)]
struct Report<'a> {
    #[serde(borrow)]
    brokers: HashMap<&'a str, Broker<'a>>,
}

#[derive(Deserialize)]
struct Broker<'a> {
    state: &'a str,
}

impl Report<'_> {
    fn is_connected(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = oneshot::Receiver<Result<(), PublishError>>;

    fn request(records: usize, deliveries: &Deliveries) -> (Arc<RequestAck>, Outcome) {
        let (done, outcome) = oneshot::channel();
        deliveries.requests.fetch_add(1, Ordering::AcqRel);
        (Arc::new(RequestAck::new(records, done)), outcome)
    }

    #[test]
    fn a_request_is_answered_with_its_last_record() {
        let deliveries = Deliveries::default();
        let (ack, mut outcome) = request(3, &deliveries);
        ack.settle(1, &deliveries);
        ack.settle(1, &deliveries);
        assert!(outcome.try_recv().is_err(), "one record is still on its way");
        assert_eq!(deliveries.requests.load(Ordering::Acquire), 1);
        ack.settle(1, &deliveries);
        assert!(outcome.try_recv().unwrap().is_ok());
        assert_eq!(deliveries.requests.load(Ordering::Acquire), 0);
    }

    #[test]
    fn one_failed_record_fails_the_request_whatever_follows() {
        let deliveries = Deliveries::default();
        let (ack, mut outcome) = request(2, &deliveries);
        let failure = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        ack.failure.set(failure).unwrap();
        ack.settle(1, &deliveries);
        ack.settle(1, &deliveries);
        assert!(matches!(outcome.try_recv().unwrap(), Err(PublishError::Unconfirmed(_))));
    }

    #[test]
    fn a_connected_broker_is_told_from_the_report() {
        let connected =
            |text: &str| serde_json::from_str::<Report<'_>>(text).unwrap().is_connected();
        let down = r#"{"name":"x","brokers":{"a:1/1":{"name":"a","state":"DOWN","rtt":{}}}}"#;
        assert!(!connected(down));
        assert!(connected(&down.replace("DOWN", "UP")));
        assert!(!connected(r#"{"brokers":{}}"#));
    }
}
