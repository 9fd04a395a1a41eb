//! Records that are no events: listed, shown, and published again once they are events.

pub mod retry;
pub mod text;

use crate::config::RecordName;
use chrono::DateTime;
use event_consumer::decode::Source;
use event_log::{EventLogProducer, PublishError, RecordBatch};
use retry::{Ready, Refused};
use usage_store::dead_letters::DeadLetterFilter;
use usage_store::{StoreError, UsageStore};

/// Records of one publish.
const PUBLISH_RECORDS: usize = 100;
/// Most records that are retried by their reason.
pub const RETRY_MAX: u64 = 100_000;

/// Which dead letters are retried.
#[derive(Clone, Debug)]
pub enum Selection {
    Records(Vec<RecordName>),
    Reason(String),
}

/// What became of a retried record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is in the log again, in this partition.
    Published {
        partition: u16,
    },
    /// It would be published.
    Ready {
        partition: u16,
    },
    Refused(Refused),
}

/// Why a retry ended before its end. What was published until then is in the log; retrying is safe.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error(
        "the log did not confirm the records; try again: the consumer drops the second copy of what it has read within the dedup horizon, and what is billed already is not sent"
    )]
    Publish(#[from] PublishError),
}

/// Publishes what is an event by now and is not billed yet; `producer` is `None` for a dry run. `each` is told of every record.
pub async fn retry(
    store: &UsageStore,
    source: &Source,
    producer: Option<&dyn EventLogProducer>,
    selection: Selection,
    mut each: impl FnMut(&RecordName, &Retried),
) -> Result<(), RetryError> {
    let names = names(store, selection).await?;
    for names in names.chunks(PUBLISH_RECORDS) {
        let mut ready: Vec<(&RecordName, Ready)> = Vec::new();
        for name in names {
            let found = store.dead_letter(&name.topic, name.position).await?;
            match retry::judge(source, found) {
                Ok(record) => ready.push((name, record)),
                Err(refused) => each(name, &Retried::Refused(refused)),
            }
        }
        // The consumer would know an earlier copy only as long as its dedup horizon.
        let hashes: Vec<_> = ready.iter().map(|(_, ready)| ready.identity.0).collect();
        let billed = store.billed_ids(&hashes).await?;
        ready.retain(|(name, ready)| match billed.get(&ready.identity.0) {
            Some(position) => {
                each(name, &Retried::Refused(Refused::billed(*position)));
                false
            }
            None => true,
        });
        if let Some(producer) = producer {
            let mut batch = RecordBatch::default();
            for (_, Ready { partition, key, value, .. }) in &ready {
                batch.push(
                    |out| out.extend_from_slice(key),
                    |_| *partition,
                    |out| out.extend_from_slice(value),
                );
            }
            producer.publish(batch).await?;
        }
        for (name, Ready { partition, .. }) in ready {
            let retried = match producer {
                Some(_) => Retried::Published { partition },
                None => Retried::Ready { partition },
            };
            each(name, &retried);
        }
    }
    Ok(())
}

async fn names(store: &UsageStore, selection: Selection) -> Result<Vec<RecordName>, StoreError> {
    let reason = match selection {
        Selection::Records(names) => return Ok(names),
        Selection::Reason(reason) => reason,
    };
    let filter =
        DeadLetterFilter { reason: Some(reason), since: DateTime::UNIX_EPOCH, limit: RETRY_MAX };
    let letters = store.dead_letters(&filter).await?;
    let name = |letter: usage_store::dead_letters::DeadLetter| RecordName {
        topic: letter.topic,
        position: letter.position,
    };
    // Those parked first stand first in the log again.
    Ok(letters.into_iter().rev().map(name).collect())
}
