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
use std::time::{Duration, Instant};
use usage_store::{IdentityRow, RecentInsert, Remembered, StoreError, UsageStore};

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
    /// The time now at the earliest. The store's clock may say that it is earlier still.
    pub at: DateTime<Utc>,
    /// The time now at the latest. No event counts as accepted later. Were it too early, ids would be let
    /// go too early.
    pub at_latest: DateTime<Utc>,
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
    /// What the store's clock has shown, and a moment after that by a steady clock.
    pub store_clock: (DateTime<Utc>, Instant),
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
    let RebuildRequest { ref topic, order, ref partitions, bytes_max, .. } = *request;
    store.check().await?;
    let store = store.caught_up().await?;
    let (mut pasts, mut since) = (BTreeMap::new(), request.at - request.reach);
    for partition in partitions {
        let highest_stored = store.highest_stored_offset(topic, order.epoch(), *partition).await?;
        let recent = store.recent_insert(topic, order.epoch(), *partition).await?;
        since = since.min(remembered_since(request, &recent));
        pasts
            .insert(*partition, Past { highest_stored, store_clock: (recent.now, Instant::now()) });
        progress();
    }
    let remembered = Remembered { epoch: order.epoch(), partitions, since };
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
    Ok(Ok(build(piles, pasts, progress).await))
}

/// What is known of a partition besides its ids.
#[derive(Clone, Copy, Debug)]
struct Past {
    highest_stored: Option<Offset>,
    store_clock: (DateTime<Utc>, Instant),
}

/// From when on events are to be remembered. The clocks of this process, of the store, and of whoever was
/// at work last may each be ahead: the earliest counts.
fn remembered_since(request: &RebuildRequest, recent: &RecentInsert) -> DateTime<Utc> {
    let RecentInsert { inserted_at, now } = *recent;
    inserted_at.unwrap_or(now).min(now).min(request.at) - request.reach
}

/// Puts the ids in order, away from the runtime's threads, which have others to serve.
async fn build(
    piles: Piles,
    pasts: BTreeMap<PartitionId, Past>,
    progress: &Progress,
) -> BTreeMap<PartitionId, Rebuilt> {
    let mut rebuilt = BTreeMap::new();
    for (partition, builder) in piles.builders {
        let progress = Arc::clone(progress);
        let building = tokio::task::spawn_blocking(move || builder.build(|| progress()));
        let index = building.await.expect("putting ids in order neither panics nor is cancelled");
        let Past { highest_stored, store_clock } = pasts[&partition];
        rebuilt.insert(partition, Rebuilt { index, highest_stored, store_clock });
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
        let RebuildRequest { order, ref partitions, at_latest, bytes_max, .. } = *request;
        let count = |partition| {
            let counted = counts.get(partition).copied().unwrap_or(0);
            usize::try_from(counted).unwrap_or(usize::MAX)
        };
        // The count includes copies that were not merged. Without them it may be little enough yet.
        let needed = partitions.iter().map(|p| IndexBuilder::bytes_for(count(p)));
        let fits = needed.fold(0, usize::saturating_add) <= bytes_max;
        let expected = |partition| if fits { count(partition) } else { 0 };
        let builder = |partition| IndexBuilder::new(order, since, at_latest, expected(partition));
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
    use crate::dedup::{Copy, Verdict};
    use crate::trusted_time::TrustedTime;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const ORDER: PositionOrder = PositionOrder::new(1);

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn request(at: DateTime<Utc>, at_latest: DateTime<Utc>, reach: Duration) -> RebuildRequest {
        RebuildRequest {
            topic: "t".to_owned(),
            order: ORDER,
            partitions: vec![0, 3],
            at,
            at_latest,
            reach,
            bytes_max: usize::MAX,
        }
    }

    fn piles(bytes_max: usize, counts: &[(PartitionId, u64)]) -> Piles {
        let request = RebuildRequest { bytes_max, ..request(start(), start(), DAY) };
        Piles::new(&request, start() - DAY, &counts.iter().copied().collect())
    }

    #[test]
    fn a_clock_that_was_set_back_during_a_rebuild_lets_go_of_nothing() {
        const HORIZON: Duration = Duration::from_secs(35 * 86_400);
        let (at, back) = (start(), start() - 90 * DAY);
        let request = request(back, at, HORIZON + 7 * DAY);
        let mut piles = Piles::new(&request, back - request.reach, &BTreeMap::new());
        let hash = |id: u64| metering::identity::identity_hash(&id.to_le_bytes());
        let hours = |at: DateTime<Utc>| u32::try_from(at.timestamp() / 3600).unwrap();
        for (offset, days) in [(0, 40), (1, 34), (2, 1)] {
            piles.add(&IdentityRow {
                partition: 0,
                epoch: 1,
                offset,
                hash: hash(offset).0,
                fingerprint: 7,
                accepted_hour: hours(at - days * DAY),
            });
        }
        let mut index = piles.builders.remove(&0).unwrap().build(|| ());
        let mut decide = |id: u64, offset| {
            let (hash, place) = (hash(id), ORDER.current(offset));
            let verdict = index.decide(&Copy {
                hash,
                place,
                fingerprint: 7,
                accepted_at: at,
                decided_at: at,
            });
            index.forget_beyond(HORIZON);
            index.sweep();
            verdict
        };
        assert_eq!(decide(3, 3), Verdict::First);
        assert_eq!(decide(1, 4), Verdict::Duplicate);
        assert_eq!(decide(2, 5), Verdict::Duplicate);
        assert_eq!(decide(0, 6), Verdict::First, "it was beyond the horizon");
    }

    proptest! {
        /// A consumer is at work, then none for some days, then one begins with a rebuild. The clock of the
        /// first one jumps, that of the second may be wrong from its start on, or it was the other way
        /// round. However far ahead they are, the rebuild reads what was within reach of the last insert.
        #[test]
        fn clocks_that_are_ahead_never_shorten_the_reach_of_a_rebuild(
            ahead in prop::array::uniform4(0_u64..100),
            days in prop::array::uniform2(0_u64..60),
        ) {
            let [first_start, first_jump, second_start, second_jump] = ahead.map(|days| days * DAY.as_secs());
            let ahead = |at: DateTime<Utc>, seconds| at + Duration::from_secs(seconds);
            let [worked, away] = days.map(|days| Duration::from_secs(days * DAY.as_secs()));
            let steady = Instant::now();
            let mut first = TrustedTime::new(ahead(start(), first_start), steady);
            first.store_showed(start(), steady);
            let last = start() + worked;
            let inserted_at = first.earliest(ahead(last, first_start + first_jump), steady + worked);
            prop_assert!(inserted_at <= last);
            let (now, steady) = (last + away, steady + worked + away);
            let second = TrustedTime::new(ahead(now, second_start), steady);
            let at = second.earliest(ahead(now, second_start + second_jump), steady);
            let request = request(at, second.latest(steady), 42 * DAY);
            let audited = RecentInsert { inserted_at: Some(inserted_at), now };
            prop_assert!(remembered_since(&request, &audited) <= last - 42 * DAY);
            // Ranges of a consumer that believed its clock, or none: the store's clock is the bound.
            for inserted_at in [None, Some(ahead(last, first_start + first_jump))] {
                let recent = RecentInsert { inserted_at, now };
                prop_assert!(remembered_since(&request, &recent) <= now - 42 * DAY);
            }
        }
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
