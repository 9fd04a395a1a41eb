//! Fills an index with many ids that come in no order, in less time and memory than one by one.
//!
//! Ids are appended to the memory of the table they belong to, and put in order there at the end.

use super::ages::{Ages, Hours};
use super::table::{Entry, SHARDS, Table, sort_distinct};
use super::{PartitionIndex, Place, PositionOrder};
use chrono::{DateTime, Utc};
use metering::IdentityHash;

/// The first copy of an event, as the store holds it.
#[derive(Clone, Copy, Debug)]
pub struct StoredCopy {
    pub hash: IdentityHash,
    pub place: Place,
    pub fingerprint: u64,
    /// The hour it was accepted in, counted from 1970.
    pub accepted_hour: u32,
}

/// The stored ids of one partition. An id may come repeatedly: its earliest place counts.
#[derive(Debug)]
pub struct IndexBuilder {
    order: PositionOrder,
    shards: Vec<Vec<Entry>>,
    hours: Hours,
    allocated: usize,
}

impl IndexBuilder {
    /// For about `expected` ids of events accepted from `since` to `at`. What is accepted later counts
    /// as accepted at `at`. More ids than expected cost time, and more memory than they need for a moment.
    pub fn new(
        order: PositionOrder,
        since: DateTime<Utc>,
        at: DateTime<Utc>,
        expected: usize,
    ) -> Self {
        // Hashes are spread evenly: a shard with 4 standard deviations more is one of 30,000.
        let mean = expected / SHARDS;
        let slots = if expected == 0 { 0 } else { Table::slots_for(mean + 4 * mean.isqrt()) };
        let shards: Vec<_> = (0..SHARDS).map(|_| Vec::with_capacity(slots)).collect();
        let allocated = shards.iter().map(bytes).sum();
        Self { order, shards, hours: Hours::new(since, at), allocated }
    }

    /// The memory that an index of `ids` takes, in bytes.
    pub fn bytes_for(ids: usize) -> usize {
        let slots = Table::slots_for(ids.div_ceil(SHARDS));
        slots.saturating_mul(SHARDS * Entry::BYTES)
    }

    /// Takes over what the store holds.
    pub fn add(&mut self, copy: &StoredCopy) {
        let entry = Entry::new(copy.hash, copy.place, copy.fingerprint);
        let shard = &mut self.shards[entry.shard()];
        if shard.len() == shard.capacity() {
            let before = bytes(shard);
            shard.reserve_exact(shard.len() / 8 + 16);
            self.allocated += bytes(shard) - before;
        }
        shard.push(entry);
        self.hours.note(copy.accepted_hour, copy.place);
    }

    /// Memory in bytes, at present.
    pub fn allocated_bytes(&self) -> usize {
        self.allocated
    }

    /// Ids that came, repeated ones counted again unless they were dropped.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what came repeatedly, and frees its memory.
    pub fn compact(&mut self) {
        for shard in &mut self.shards {
            sort_distinct(shard);
            shard.shrink_to_fit();
        }
        self.allocated = self.shards.iter().map(bytes).sum();
    }

    /// The index. `progress` is called after each 64th of the work.
    pub fn build(self, progress: impl Fn()) -> PartitionIndex {
        let tables = self.shards.into_iter().map(|shard| {
            progress();
            Table::from_unordered(shard)
        });
        PartitionIndex::of_tables(self.order, tables.collect(), Ages::of(&self.hours))
    }
}

fn bytes(shard: &Vec<Entry>) -> usize {
    shard.capacity() * Entry::BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::{Copy, Verdict};
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const ORDER: PositionOrder = PositionOrder::new(3);

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn hash(id: u64) -> IdentityHash {
        metering::identity::identity_hash(&id.to_le_bytes())
    }

    fn stored(id: u64, offset: u64, fingerprint: u64) -> StoredCopy {
        let place = ORDER.current(offset);
        StoredCopy { hash: hash(id), place, fingerprint, accepted_hour: 500_000 }
    }

    fn builder(expected: usize) -> IndexBuilder {
        IndexBuilder::new(ORDER, start(), start() + TimeDelta::days(1), expected)
    }

    fn decide(index: &mut PartitionIndex, id: u64, offset: u64, fingerprint: u64) -> Verdict {
        let place = ORDER.current(offset);
        let at = start();
        index.decide(&Copy { hash: hash(id), place, fingerprint, accepted_at: at, decided_at: at })
    }

    #[test]
    fn of_several_stored_rows_the_earliest_counts() {
        for compacted in [false, true] {
            let mut builder = builder(3);
            for offset in [12, 10, 11] {
                builder.add(&stored(1, offset, offset));
            }
            if compacted {
                builder.compact();
            }
            let mut index = builder.build(|| ());
            assert_eq!(decide(&mut index, 1, 10, 10), Verdict::Replay);
            assert_eq!(index.len(), 1);
        }
    }

    #[test]
    fn a_row_of_an_earlier_epoch_comes_first_whatever_its_offset() {
        let mut builder = builder(1);
        let place = ORDER.stored(2, (1 << 48) - 1).unwrap();
        builder.add(&StoredCopy { place, ..stored(1, 0, 5) });
        assert_eq!(decide(&mut builder.build(|| ()), 1, 0, 5), Verdict::Duplicate);
    }

    #[test]
    fn ids_that_were_expected_take_what_the_index_takes_and_no_more() {
        let ids = 500_000;
        let mut builder = builder(ids);
        let before = builder.allocated_bytes();
        for id in 0..u64::try_from(ids).unwrap() {
            builder.add(&stored(id, id, id));
        }
        assert_eq!(builder.allocated_bytes(), before, "nothing has grown");
        let index = builder.build(|| ());
        assert_eq!(index.len(), ids);
        let bound = IndexBuilder::bytes_for(ids);
        assert!(
            index.allocated_bytes() <= bound + bound / 50,
            "{} of {bound}",
            index.allocated_bytes()
        );
        assert!(before <= bound + bound / 10, "{before} of {bound}");
    }

    #[test]
    fn what_came_repeatedly_is_given_back() {
        let mut builder = builder(0);
        for offset in 0..200_000 {
            builder.add(&stored(offset % 1000, offset, 0));
        }
        let before = builder.allocated_bytes();
        builder.compact();
        assert_eq!(builder.len(), 1000);
        assert!(builder.allocated_bytes() < before / 100);
    }

    proptest! {
        /// An index that was filled at once decides as one that saw the same records one by one.
        #[test]
        fn filled_at_once_or_one_by_one(
            ids in prop::collection::vec(0_u64..400, 0..600),
            later in prop::collection::vec((0_u64..600, 0_u64..3), 1..300),
            expected in 0_usize..2000,
        ) {
            let (mut seen, mut builder) = (PartitionIndex::new(ORDER), builder(expected));
            for (offset, id) in (0..).zip(&ids) {
                decide(&mut seen, *id, offset, id % 3);
            }
            for (offset, id) in (0_u64..).zip(&ids).collect::<Vec<_>>().into_iter().rev() {
                builder.add(&stored(*id, offset, id % 3));
            }
            let mut built = builder.build(|| ());
            prop_assert_eq!(built.len(), seen.len());
            for (offset, (id, fingerprint)) in (1000..).zip(later) {
                prop_assert_eq!(decide(&mut built, id, offset, fingerprint), decide(&mut seen, id, offset, fingerprint));
            }
        }
    }
}
