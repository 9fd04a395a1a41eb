//! Records in batches: one buffer holds all keys and values of a batch.

use crate::{Offset, PartitionId};

/// Records to publish, packed into one buffer.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    partition: PartitionId,
    key_start: usize,
    value_start: usize,
    end: usize,
}

/// One record of a [`RecordBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub partition: PartitionId,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl RecordBatch {
    /// A batch with room for `records` records of `bytes` bytes in all.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(records) }
    }

    /// Appends a record: `write_key` and `write_value` append to the shared buffer, and `partition`
    /// is chosen from the finished key.
    pub fn push(
        &mut self,
        write_key: impl FnOnce(&mut Vec<u8>),
        partition: impl FnOnce(&[u8]) -> PartitionId,
        write_value: impl FnOnce(&mut Vec<u8>),
    ) {
        let key_start = self.bytes.len();
        write_key(&mut self.bytes);
        let value_start = self.bytes.len();
        let partition = partition(&self.bytes[key_start..]);
        write_value(&mut self.bytes);
        self.spans.push(Span { partition, key_start, value_start, end: self.bytes.len() });
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.spans.iter().map(|span| Record {
            partition: span.partition,
            key: &self.bytes[span.key_start..span.value_start],
            value: &self.bytes[span.value_start..span.end],
        })
    }
}

/// Consecutive records of one partition, packed into one buffer.
#[derive(Clone, Debug)]
pub struct FetchedRecords {
    pub partition: PartitionId,
    bytes: Vec<u8>,
    spans: Vec<FetchedSpan>,
}

#[derive(Clone, Copy, Debug)]
struct FetchedSpan {
    offset: Offset,
    key_start: usize,
    value_start: usize,
    end: usize,
}

/// One record of a [`FetchedRecords`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedRecord<'a> {
    pub offset: Offset,
    /// Empty when the record has no key.
    pub key: &'a [u8],
    /// Empty for a tombstone.
    pub value: &'a [u8],
}

impl FetchedRecords {
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, bytes: Vec::new(), spans: Vec::new() }
    }

    /// Appends a record, whose offset is above those already there.
    pub fn push(&mut self, offset: Offset, key: &[u8], value: &[u8]) {
        debug_assert!(self.spans.last().is_none_or(|last| last.offset < offset), "offsets ascend");
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.spans.push(FetchedSpan { offset, key_start, value_start, end: self.bytes.len() });
    }

    /// Forgets the records from offset `until` on.
    pub(crate) fn truncate(&mut self, until: Offset) {
        let kept = self.spans.partition_point(|span| span.offset < until);
        self.spans.truncate(kept);
        self.bytes.truncate(self.spans.last().map_or(0, |last| last.end));
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The offset of the last record.
    pub fn last_offset(&self) -> Option<Offset> {
        self.spans.last().map(|span| span.offset)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = FetchedRecord<'_>> {
        self.spans.iter().map(|span| FetchedRecord {
            offset: span.offset,
            key: &self.bytes[span.key_start..span.value_start],
            value: &self.bytes[span.value_start..span.end],
        })
    }
}
