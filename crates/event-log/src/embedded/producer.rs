//! The writing end of the embedded log.

use super::Handle;
use crate::{EventLogProducer, PublishError, PublishFuture, RecordBatch};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Publishes to an [`super::EmbeddedLog`]. Clones share its queue.
#[derive(Clone, Debug)]
pub struct EmbeddedProducer {
    handle: Arc<Handle>,
}

impl EmbeddedProducer {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }
}

impl EventLogProducer for EmbeddedProducer {
    fn partition_count(&self) -> u16 {
        self.handle.shared.partition_count()
    }

    fn publish(&self, batch: RecordBatch) -> PublishFuture {
        if batch.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let partitions = self.partition_count();
        if let Some(lost) = batch.iter().find(|record| record.partition >= partitions) {
            let error = super::no_such_partition(lost.partition, partitions);
            return Box::pin(std::future::ready(Err(PublishError::Unconfirmed(error.into()))));
        }
        match self.handle.shared.queue.publish(batch) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(outcome) => Box::pin(async move {
                outcome.await.unwrap_or_else(|_| {
                    Err(PublishError::Fatal("the writer of the embedded log has stopped".into()))
                })
            }),
        }
    }

    fn unready(&self) -> Option<String> {
        if self.handle.shared.queue.is_closed() {
            return Some("the writer of the embedded log has stopped".to_owned());
        }
        self.handle.shared.trouble()
    }

    fn flush(
        &self,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
        let shared = Arc::clone(&self.handle.shared);
        Box::pin(async move {
            let answered =
                tokio::task::spawn_blocking(move || shared.queue.wait_until_answered(limit)).await;
            match answered {
                Ok(true) => Ok(()),
                Ok(false) => {
                    let detail = format!("records were not durable after {limit:?}");
                    Err(PublishError::Unconfirmed(detail.into()))
                }
                Err(panicked) => Err(PublishError::Fatal(panicked.into())),
            }
        })
    }
}
