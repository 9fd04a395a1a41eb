//! Which partitions are ours, and which offsets may be committed. Pure.

use crate::batch::{Range, Tenure};
use crate::dedup::PartitionIndex;
use crate::partition::Partition;
use event_log::{Assignment, Offset, PartitionId};
use fault_injection::{Sabotage, sabotaged};
use std::collections::BTreeMap;

/// The partitions of this member, the indexes of those it had, and the commits that are due.
#[derive(Debug, Default)]
pub struct Partitions {
    owned: BTreeMap<PartitionId, Partition>,
    /// The indexes of partitions that were lost. They often come back at once: most rebalances take
    /// everything and give most of it back.
    retained: BTreeMap<PartitionId, Retained>,
    to_commit: BTreeMap<PartitionId, Offset>,
    /// Up to where the owned partitions are known to be stored: where reading started, or further.
    stored: BTreeMap<PartitionId, Offset>,
    generations: u64,
}

/// An index that may be needed again.
#[derive(Debug)]
struct Retained {
    index: PartitionIndex,
    /// The offset it is complete up to.
    next: Offset,
    /// The offset up to which everything is known to be stored.
    stored: Offset,
}

impl Partitions {
    /// Takes over partitions. Those that are returned need their index rebuilt.
    ///
    /// A retained index is a function of the log before some offset. Cut back to where reading
    /// starts it is what a rebuild would give; when somebody else has read on meanwhile, it is not.
    /// The same goes for one that has let go of ids since it decided a record that is read once more.
    /// When reading starts before what is known to be stored, the commits were lost, perhaps with the
    /// topic, and only a rebuild compares the log with the store.
    pub fn assign(&mut self, assignments: &[Assignment]) -> Vec<Tenure> {
        let mut retained = std::mem::take(&mut self.retained);
        let mut to_rebuild = Vec::new();
        for Assignment { partition, start } in assignments {
            self.generations += 1;
            let tenure = Tenure { partition: *partition, generation: self.generations };
            let index = retained.remove(partition).and_then(|mut known| {
                if sabotaged(Sabotage::StaleIndex) {
                    return Some(known.index);
                }
                let goes_on = (known.stored..=known.next).contains(start);
                (goes_on && known.index.can_be_cut_back(*start)).then(|| {
                    known.index.cut_back(*start..known.next);
                    known.index
                })
            });
            if index.is_none() {
                to_rebuild.push(tenure);
            }
            self.to_commit.remove(partition);
            self.stored.insert(*partition, *start);
            self.owned.insert(*partition, Partition::new(tenure, *start, index));
        }
        if sabotaged(Sabotage::StaleIndex) {
            self.retained = retained;
        }
        to_rebuild
    }

    /// Lets go of partitions, with everything that was fetched of them and not committed.
    pub fn revoke(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.to_commit.remove(partition);
            let stored = self.stored.remove(partition).unwrap_or_default();
            let index = self.owned.remove(partition).and_then(Partition::into_index);
            if let Some((index, next)) = index {
                self.retained.insert(*partition, Retained { index, next, stored });
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    pub fn get_mut(&mut self, partition: PartitionId) -> Option<&mut Partition> {
        self.owned.get_mut(&partition)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.owned.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.owned.values_mut()
    }

    /// Whether a partition is still held under the assignment it was read under.
    pub fn holds(&self, tenure: Tenure) -> bool {
        self.owned.get(&tenure.partition).is_some_and(|partition| partition.tenure() == tenure)
    }

    /// The first partition after `after`, in a circle.
    pub fn following(&self, after: PartitionId) -> Option<PartitionId> {
        self.owned
            .range(after.saturating_add(1)..)
            .chain(&self.owned)
            .next()
            .map(|(partition, _)| *partition)
    }

    /// Notes that everything in `ranges` is in the store. Batches are inserted in the order they were
    /// read in, so what is noted is a contiguous prefix.
    pub fn inserted(&mut self, ranges: &[Range]) {
        for range in ranges.iter().filter(|range| self.holds(range.tenure)).collect::<Vec<_>>() {
            self.to_commit.insert(range.tenure.partition, range.next);
            self.stored.insert(range.tenure.partition, range.next);
        }
    }

    /// The offsets to commit.
    pub fn to_commit(&self) -> Vec<(PartitionId, Offset)> {
        self.to_commit.iter().map(|(partition, next)| (*partition, *next)).collect()
    }

    /// The first offset of each partition that was not decided yet.
    pub fn decided(&self) -> Vec<(PartitionId, Offset)> {
        self.owned.values().map(|p| (p.tenure().partition, p.next())).collect()
    }

    /// Notes that everything that was due is committed.
    pub fn committed(&mut self) {
        self.to_commit.clear();
    }

    /// Bytes of records that were fetched and not decided.
    pub fn backlog_bytes(&self) -> usize {
        self.owned.values().map(Partition::backlog_bytes).sum()
    }

    /// Ids that are remembered.
    pub fn ids(&self) -> usize {
        self.indexes().map(PartitionIndex::len).sum()
    }

    /// Memory of all indexes, in bytes.
    pub fn index_bytes(&self) -> usize {
        self.indexes().map(PartitionIndex::allocated_bytes).sum()
    }

    pub fn indexes_mut(&mut self) -> impl Iterator<Item = &mut PartitionIndex> {
        let retained = self.retained.values_mut().map(|known| &mut known.index);
        self.owned.values_mut().filter_map(Partition::index_mut).chain(retained)
    }

    fn indexes(&self) -> impl Iterator<Item = &PartitionIndex> {
        self.owned
            .values()
            .filter_map(Partition::index)
            .chain(self.retained.values().map(|known| &known.index))
    }
}

#[cfg(test)]
mod tests;
