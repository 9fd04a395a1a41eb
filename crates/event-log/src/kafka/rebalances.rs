//! What librdkafka announces while it is polled: partitions that come and go.

use super::{log_error, log_line};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(super) enum Rebalance {
    Assigned(Vec<i32>),
    /// Everything, as eager rebalances do.
    Revoked,
}

/// What librdkafka's callback announced, in order.
#[derive(Debug, Default)]
pub(super) struct Rebalances {
    announced: AtomicBool,
    queue: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
}

impl Rebalances {
    pub(super) fn announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// From now on nobody answers assignments any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn push(&self, rebalance: Rebalance) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
        self.announced.store(true, Ordering::Release);
    }

    pub(super) fn next(&self) -> Option<Rebalance> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.pop_front();
        self.announced.store(!queue.is_empty(), Ordering::Release);
        next
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if assigned && !self.closing.load(Ordering::Acquire) {
            let partitions = partitions.elements();
            self.push(Rebalance::Assigned(partitions.iter().map(|p| p.partition()).collect()));
            return;
        }
        // Answered at once: the group waits for it, and no request is needed.
        if let Err(error) = consumer.unassign() {
            tracing::warn!(%error, "partitions could not be given up");
        }
        self.push(Rebalance::Revoked);
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}
