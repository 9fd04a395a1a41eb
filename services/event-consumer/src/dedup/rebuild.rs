//! Reads the index of a partition back from what the store holds.

use super::{Copy, PartitionIndex, PositionOrder};
use chrono::{DateTime, Utc};
use event_log::{Offset, PartitionId};
use metering::IdentityHash;
use service_kit::lifecycle::chain;
use service_kit::retry::Backoff;
use std::time::Duration;
use usage_store::{IdentityRow, StoreError, UsageStore};

/// First and longest delay between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Rows after which progress is told.
const PROGRESS_ROWS: u64 = 100_000;

/// What to read.
#[derive(Clone, Debug)]
pub struct RebuildRequest {
    pub topic: String,
    pub order: PositionOrder,
    pub partition: PartitionId,
    /// Events accepted before it are not remembered.
    pub since: DateTime<Utc>,
    /// The time now. The store does not say when each event was accepted, so all count as accepted
    /// now: they are remembered longer than they have to be, never shorter.
    pub at: DateTime<Utc>,
    /// Memory for the index, in bytes.
    pub bytes_max: usize,
}

/// A partition's past.
#[derive(Debug)]
pub struct Rebuilt {
    pub index: PartitionIndex,
    /// The last offset that the audit speaks of, in the epoch of the request.
    pub highest_stored: Option<Offset>,
}

/// The index needs more memory than the `bytes_max` that it may have. Forgetting would bill events twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexTooLarge {
    pub bytes_max: usize,
}

/// Tries until the store has answered. `progress` is called now and then while it does.
pub async fn rebuild(
    store: &UsageStore,
    request: RebuildRequest,
    progress: impl Fn(),
) -> Result<Rebuilt, IndexTooLarge> {
    let mut backoff = Backoff::new(DELAYS.0, DELAYS.1);
    loop {
        match attempt(store, &request, &progress).await {
            Ok(rebuilt) => return rebuilt,
            Err(error) => tracing::warn!(
                partition = request.partition,
                error = chain(&error),
                "cannot read the stored identities, trying again; the partition waits"
            ),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn attempt(
    store: &UsageStore,
    request: &RebuildRequest,
    progress: &impl Fn(),
) -> Result<Result<Rebuilt, IndexTooLarge>, StoreError> {
    let RebuildRequest { ref topic, order, partition, since, at, bytes_max } = *request;
    store.check().await?;
    let mut index = PartitionIndex::new(order);
    let (mut rows, mut too_large) = (0_u64, false);
    let remember = |row: IdentityRow| {
        rows += 1;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            progress();
        }
        too_large |= index.allocated_bytes() > bytes_max;
        if !too_large {
            index.remember(&copy(order, &row, at));
        }
    };
    store.remembered_identities(order.epoch(), partition, since, remember).await?;
    if too_large {
        return Ok(Err(IndexTooLarge { bytes_max }));
    }
    let highest_stored = store.highest_stored_offset(topic, order.epoch(), partition).await?;
    Ok(Ok(Rebuilt { index, highest_stored }))
}

fn copy(order: PositionOrder, row: &IdentityRow, accepted_at: DateTime<Utc>) -> Copy {
    let IdentityRow { epoch, offset, hash, fingerprint } = *row;
    let place =
        order.stored(epoch, offset).expect("the query asks for this epoch and those before it");
    Copy { hash: IdentityHash(hash), place, fingerprint, accepted_at }
}
