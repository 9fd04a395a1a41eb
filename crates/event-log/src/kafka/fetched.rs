//! The records of one poll, packed by partition.

use crate::{FetchedRecords, Offset, POLL_BYTES_MAX, POLL_RECORDS_MAX, PartitionId};

#[derive(Debug, Default)]
pub(super) struct Fetched {
    partitions: Vec<FetchedRecords>,
    records: usize,
    bytes: usize,
}

impl Fetched {
    pub(super) fn push(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        key: &[u8],
        value: &[u8],
    ) {
        // Records come in runs of one partition, and partitions are few.
        let at = self.partitions.iter().rposition(|records| records.partition == partition);
        let at = at.unwrap_or_else(|| {
            self.partitions.push(FetchedRecords::new(partition));
            self.partitions.len() - 1
        });
        self.partitions[at].push(offset, key, value);
        self.records += 1;
        self.bytes += key.len() + value.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn into_partitions(self) -> Vec<FetchedRecords> {
        self.partitions
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= POLL_RECORDS_MAX || self.bytes >= POLL_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_packed_by_partition_in_order() {
        let mut fetched = Fetched::default();
        assert!(fetched.is_empty());
        for (partition, offset) in [(3, 7), (1, 0), (3, 9)] {
            fetched.push(partition, offset, b"k", b"v");
        }
        let offsets = |records: &FetchedRecords| {
            (records.partition, records.iter().map(|record| record.offset).collect::<Vec<_>>())
        };
        let partitions: Vec<_> = fetched.into_partitions().iter().map(offsets).collect();
        assert_eq!(partitions, [(3, vec![7, 9]), (1, vec![0])]);
    }

    #[test]
    fn a_poll_is_full_at_its_bounds() {
        let mut fetched = Fetched::default();
        for offset in 1..=10_000 {
            assert!(!fetched.is_full());
            fetched.push(0, offset, b"", b"");
        }
        assert!(fetched.is_full());
        let mut fetched = Fetched::default();
        fetched.push(0, 0, b"k", &vec![0; POLL_BYTES_MAX - 2]);
        assert!(!fetched.is_full());
        fetched.push(0, 1, b"", b"v");
        assert!(fetched.is_full());
    }
}
