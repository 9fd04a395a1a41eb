//! Hands the accepted events of a request to the log, and waits until they are durable.

use crate::metrics;
use crate::problem::{Problem, ProblemCode};
use event_log::{EventLogProducer, PublishError, RecordBatch, wire};
use fault_injection::{Point, Sabotage, reach, sabotaged};
use metering::UsageEvent;
use metering::identity::partition_of;
use service_kit::lifecycle::chain;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Bytes a record takes beyond the texts of its event: the key's repetition of the identity and the field names.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 160;

/// The records of `events`, in their order, in one buffer of about `bytes_expected` bytes.
pub(crate) fn records(
    events: &[UsageEvent<'_>],
    partitions: u16,
    topic_epoch: u16,
    bytes_expected: usize,
) -> RecordBatch {
    let mut batch = RecordBatch::with_capacity(events.len(), bytes_expected);
    for event in events {
        batch.push(
            |key| write_key(event, key),
            |key| partition_of(key, partitions),
            |value| wire::encode(event, topic_epoch, value),
        );
    }
    batch
}

fn write_key(event: &UsageEvent<'_>, key: &mut Vec<u8>) {
    if sabotaged(Sabotage::AmbiguousKey) {
        let parts = [&event.organization_id, &event.transaction_scope, &event.transaction_id];
        key.extend_from_slice(parts.map(|part| part.as_bytes()).join(&b'-').as_slice());
        return;
    }
    event.write_identity_key(key);
}

/// Returns once every record of `batch` is durable.
///
/// A refusal does not say that nothing was stored. When the producer has failed for good, `failed`
/// is cancelled, which ends the process.
pub(crate) async fn publish(
    producer: &dyn EventLogProducer,
    batch: RecordBatch,
    limit: Duration,
    failed: &CancellationToken,
) -> Result<(), Problem> {
    if batch.is_empty() {
        return Ok(());
    }
    let (events, start) = (batch.len(), Instant::now());
    let published = producer.publish(batch);
    reach(Point::RecordsEnqueued)?;
    if sabotaged(Sabotage::AckOnEnqueue) {
        return Ok(());
    }
    let result = timeout(limit, published).await;
    metrics::publish_took(start.elapsed());
    if sabotaged(Sabotage::AckOnPublishError) {
        return Ok(());
    }
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(PublishError::QueueFull)) => Err(Problem::new(ProblemCode::PublishQueueFull)),
        Ok(Err(error @ PublishError::Unconfirmed(_))) => {
            tracing::warn!(
                events,
                error = chain(&error),
                "events were not confirmed, the client has to send them again"
            );
            Err(Problem::new(ProblemCode::PublishUnconfirmed))
        }
        Ok(Err(error @ PublishError::Fatal(_))) => {
            tracing::error!(events, error = chain(&error), "the producer has failed for good");
            failed.cancel();
            Err(Problem::new(ProblemCode::PublishUnconfirmed))
        }
        Err(_) => {
            tracing::warn!(
                events,
                limit_seconds = limit.as_secs(),
                "events were not confirmed in time, the client has to send them again"
            );
            Err(Problem::new(ProblemCode::PublishUnconfirmed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_log::PublishFuture;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A log that answers as it is told.
    #[derive(Debug)]
    struct Answers(fn() -> PublishFuture, AtomicUsize);

    impl EventLogProducer for Answers {
        fn partition_count(&self) -> u16 {
            1
        }

        fn publish(&self, _: RecordBatch) -> PublishFuture {
            self.1.fetch_add(1, Ordering::Relaxed);
            (self.0)()
        }

        fn unready(&self) -> Option<String> {
            None
        }

        fn flush(
            &self,
            _: Duration,
        ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    async fn outcome(
        answer: fn() -> PublishFuture,
        batch: RecordBatch,
    ) -> (Option<ProblemCode>, bool, usize) {
        let (log, failed) = (Answers(answer, AtomicUsize::new(0)), CancellationToken::new());
        let result = publish(&log, batch, LIMIT, &failed).await;
        (result.err().map(|problem| problem.code()), failed.is_cancelled(), log.1.into_inner())
    }

    fn error(error: PublishError) -> PublishFuture {
        Box::pin(std::future::ready(Err(error)))
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_confirmation_is_a_success() {
        let batch = || records(&[UsageEvent::example()], 1, 0, 0);
        assert_eq!(
            outcome(|| Box::pin(std::future::ready(Ok(()))), batch()).await,
            (None, false, 1)
        );
        assert_eq!(
            outcome(|| error(PublishError::QueueFull), batch()).await,
            (Some(ProblemCode::PublishQueueFull), false, 1)
        );
        let unconfirmed = Some(ProblemCode::PublishUnconfirmed);
        assert_eq!(
            outcome(|| error(PublishError::Unconfirmed("broken".into())), batch()).await,
            (unconfirmed, false, 1)
        );
        assert_eq!(
            outcome(|| error(PublishError::Fatal("fenced".into())), batch()).await,
            (unconfirmed, true, 1)
        );
        let start = Instant::now();
        assert_eq!(
            outcome(|| Box::pin(std::future::pending()), batch()).await,
            (unconfirmed, false, 1)
        );
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test]
    async fn nothing_is_published_when_nothing_was_accepted() {
        assert_eq!(
            outcome(|| error(PublishError::QueueFull), RecordBatch::default()).await,
            (None, false, 0)
        );
    }

    #[test]
    fn a_record_is_owned_by_the_partition_of_its_identity() {
        let events: Vec<UsageEvent<'_>> = (0..50)
            .map(|n| UsageEvent {
                transaction_id: format!("txn-{n}").into(),
                ..UsageEvent::example()
            })
            .collect();
        let batch = records(&events, 12, 3, 0);
        assert_eq!(batch.len(), 50);
        for (record, event) in batch.iter().zip(&events) {
            let mut key = Vec::new();
            event.write_identity_key(&mut key);
            assert_eq!(record.key, key);
            assert_eq!(record.partition, partition_of(&key, 12));
            let mut value = Vec::new();
            wire::encode(event, 3, &mut value);
            assert_eq!(record.value, value);
        }
    }
}
