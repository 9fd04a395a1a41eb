//! Reads the indexes of partitions back from what the store holds, in one scan for all of them.

use super::builder::StoredCopy;
use super::{IndexBuilder, PartitionIndex, PositionOrder};
use chrono::{DateTime, Utc};
use event_log::{Offset, PartitionId};
use metering::IdentityHash;
use service_kit::lifecycle::chain;
use service_kit::retry::Backoff;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use usage_store::{IdentityRow, Remembered, StoreError, UsageStore};

/// First and longest delay between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Rows after which progress is told, and the memory looked at.
const PROGRESS_ROWS: u64 = 100_000;

/// What to read.
#[derive(Clone, Debug)]
pub struct RebuildRequest {
    pub topic: String,
    pub order: PositionOrder,
    pub partitions: Vec<PartitionId>,
    /// The time now. No event counts as accepted later.
    pub at: DateTime<Utc>,
    /// How far before now, or before the last insert if that was earlier, the events to be remembered
    /// were accepted.
    pub reach: Duration,
    /// Memory for all these indexes together, in bytes.
    pub bytes_max: usize,
}

/// A partition's past.
#[derive(Debug)]
pub struct Rebuilt {
    pub index: PartitionIndex,
    /// The last offset that the audit speaks of, in the epoch of the request.
    pub highest_stored: Option<Offset>,
}

/// The indexes need more memory than the `bytes_max` that they may have. Forgetting would bill events twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexTooLarge {
    pub bytes_max: usize,
}

/// What is told now and then while a rebuild gets on.
pub type Progress = Arc<dyn Fn() + Send + Sync>;

/// Tries until the store has answered.
pub async fn rebuild(
    store: &UsageStore,
    request: RebuildRequest,
    progress: Progress,
) -> Result<BTreeMap<PartitionId, Rebuilt>, IndexTooLarge> {
    let mut backoff = Backoff::new(DELAYS.0, DELAYS.1);
    loop {
        match attempt(store, &request, &progress).await {
            Ok(rebuilt) => return rebuilt,
            Err(error) => tracing::warn!(
                partitions = request.partitions.len(),
                error = chain(&error),
                "cannot read the stored identities, trying again; the partitions wait"
            ),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn attempt(
    store: &UsageStore,
    request: &RebuildRequest,
    progress: &Progress,
) -> Result<Result<BTreeMap<PartitionId, Rebuilt>, IndexTooLarge>, StoreError> {
    let RebuildRequest { ref topic, order, ref partitions, at, reach, bytes_max } = *request;
    store.check().await?;
    let store = store.caught_up().await?;
    let (mut highest_stored, mut latest) = (BTreeMap::new(), at);
    for partition in partitions {
        let highest = store.highest_stored_offset(topic, order.epoch(), *partition).await?;
        highest_stored.insert(*partition, highest);
        let recent = store.recent_insert(topic, order.epoch(), *partition).await?;
        latest = recent.map_or(latest, |recent| recent.min(latest));
        progress();
    }
    let remembered = Remembered { epoch: order.epoch(), partitions, since: latest - reach };
    let counts: BTreeMap<_, _> = store.count_identities(remembered).await?.into_iter().collect();
    progress();
    let mut piles = Piles::new(request, remembered.since, &counts);
    let mut rows = 0_u64;
    let add = |row: IdentityRow| {
        rows += 1;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            progress();
            piles.check_memory();
        }
        piles.add(&row);
    };
    store.remembered_identities(remembered, add).await?;
    if piles.are_too_large() {
        return Ok(Err(IndexTooLarge { bytes_max }));
    }
    Ok(Ok(build(piles, highest_stored, progress).await))
}

/// Puts the ids in order, away from the runtime's threads, which have others to serve.
async fn build(
    piles: Piles,
    highest_stored: BTreeMap<PartitionId, Option<Offset>>,
    progress: &Progress,
) -> BTreeMap<PartitionId, Rebuilt> {
    let mut rebuilt = BTreeMap::new();
    for (partition, builder) in piles.builders {
        let progress = Arc::clone(progress);
        let building = tokio::task::spawn_blocking(move || builder.build(|| progress()));
        let index = building.await.expect("putting ids in order neither panics nor is cancelled");
        let highest_stored = highest_stored.get(&partition).copied().flatten();
        rebuilt.insert(partition, Rebuilt { index, highest_stored });
    }
    rebuilt
}

/// The ids of each partition, as far as they have come.
struct Piles {
    builders: BTreeMap<PartitionId, IndexBuilder>,
    order: PositionOrder,
    bytes_max: usize,
    too_large: bool,
}

impl Piles {
    fn new(
        request: &RebuildRequest,
        since: DateTime<Utc>,
        counts: &BTreeMap<PartitionId, u64>,
    ) -> Self {
        let RebuildRequest { order, ref partitions, at, bytes_max, .. } = *request;
        let count = |partition| {
            let counted = counts.get(partition).copied().unwrap_or(0);
            usize::try_from(counted).unwrap_or(usize::MAX)
        };
        // The count includes copies that were not merged. Without them it may be little enough yet.
        let needed = partitions.iter().map(|p| IndexBuilder::bytes_for(count(p)));
        let fits = needed.fold(0, usize::saturating_add) <= bytes_max;
        let expected = |partition| if fits { count(partition) } else { 0 };
        let builder = |partition| IndexBuilder::new(order, since, at, expected(partition));
        let builders = partitions.iter().map(|p| (*p, builder(p))).collect();
        Self { builders, order, bytes_max, too_large: false }
    }

    fn add(&mut self, row: &IdentityRow) {
        let IdentityRow { partition, epoch, offset, hash, fingerprint, accepted_hour } = *row;
        if self.too_large {
            return;
        }
        let place = self.order.stored(epoch, offset);
        let place = place.expect("the query asks for this epoch and those before it");
        let builder = self.builders.get_mut(&partition);
        builder.expect("the query asks for these partitions").add(&StoredCopy {
            hash: IdentityHash(hash),
            place,
            fingerprint,
            accepted_hour,
        });
    }

    /// What does not fit is not kept; the answer is read to its end all the same.
    fn check_memory(&mut self) {
        if self.too_large || self.needed() <= self.bytes_max {
            return;
        }
        self.builders.values_mut().for_each(IndexBuilder::compact);
        // Sorting all of it again and again for the last eighth would take hours.
        if self.needed() > self.bytes_max / 8 * 7 {
            self.too_large = true;
            self.builders.clear();
        }
    }

    /// Whether the finished indexes would be larger than they may be.
    fn are_too_large(&mut self) -> bool {
        if !self.too_large && self.needed() > self.bytes_max {
            self.builders.values_mut().for_each(IndexBuilder::compact);
            self.too_large = self.needed() > self.bytes_max;
        }
        self.too_large
    }

    /// Memory of the indexes of what has come, which is more than it takes until they are built.
    fn needed(&self) -> usize {
        let bytes = |builder: &IndexBuilder| IndexBuilder::bytes_for(builder.len());
        self.builders.values().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piles(bytes_max: usize, counts: &[(PartitionId, u64)]) -> Piles {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let request = RebuildRequest {
            topic: "t".to_owned(),
            order: PositionOrder::new(1),
            partitions: vec![0, 3],
            at,
            reach: Duration::from_secs(86_400),
            bytes_max,
        };
        Piles::new(&request, at - request.reach, &counts.iter().copied().collect())
    }

    /// Rows of `ids` events, each of them stored `copies` times without having been merged.
    fn fill(piles: &mut Piles, ids: u64, copies: u64) {
        for offset in 0..ids * copies {
            let id = offset % ids;
            let partition = if id.is_multiple_of(2) { 0 } else { 3 };
            let hash = metering::identity::identity_hash(&id.to_le_bytes()).0;
            let row =
                IdentityRow { partition, epoch: 1, offset, hash, fingerprint: 7, accepted_hour: 1 };
            piles.add(&row);
            if offset % 10_000 == 0 {
                piles.check_memory();
            }
        }
    }

    #[test]
    fn copies_that_were_not_merged_take_memory_for_a_moment_only() {
        let bytes_max = 2 * IndexBuilder::bytes_for(30_000);
        let mut piles = piles(bytes_max, &[(0, 250_000), (3, 250_000)]);
        fill(&mut piles, 50_000, 10);
        assert!(!piles.are_too_large());
        let indexes: Vec<_> = piles.builders.into_values().map(|pile| pile.build(|| ())).collect();
        assert_eq!(indexes.iter().map(PartitionIndex::len).sum::<usize>(), 50_000);
        assert!(indexes.iter().map(PartitionIndex::allocated_bytes).sum::<usize>() < bytes_max);
    }

    #[test]
    fn ids_that_do_not_fit_are_not_kept() {
        let mut piles = piles(2 * IndexBuilder::bytes_for(30_000), &[(0, 100_000), (3, 100_000)]);
        fill(&mut piles, 200_000, 1);
        assert!(piles.are_too_large());
        assert!(piles.builders.is_empty(), "their memory is free");
    }

    #[test]
    fn a_limit_is_one_of_all_partitions_together() {
        for (ids, too_large) in [(59_000, false), (61_000, true)] {
            let mut piles = piles(2 * IndexBuilder::bytes_for(30_000), &[]);
            fill(&mut piles, ids, 1);
            assert_eq!(piles.are_too_large(), too_large, "{ids}");
        }
    }
}
