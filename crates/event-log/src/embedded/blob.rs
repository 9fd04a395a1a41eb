//! A blob: consecutive records of one partition, lz4-compressed, with a checksum over all that is stored.

use crate::{FetchedRecords, Offset, PartitionId};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of records, before compression, at which a blob is full; its last record may go beyond.
pub(super) const BLOB_BYTES_MAX: usize = 1024 * 1024;
/// Records at which a blob is full.
pub(super) const BLOB_RECORDS_MAX: u32 = 4096;
/// Largest plain size that is believed when a blob is read.
const PLAIN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The stored form of consecutive records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) partition: PartitionId,
    pub(super) first: Offset,
    pub(super) records: u32,
    /// Milliseconds since 1970.
    pub(super) appended_at: i64,
    pub(super) checksum: u64,
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    /// The offset after the last record.
    pub(super) fn end(&self) -> Offset {
        self.first + u64::from(self.records)
    }

    fn computed_checksum(&self) -> u64 {
        let mut hasher = Xxh3::with_seed(self.first);
        hasher.update(&self.partition.to_le_bytes());
        hasher.update(&self.records.to_le_bytes());
        hasher.update(&self.appended_at.to_le_bytes());
        hasher.update(&self.bytes);
        hasher.digest()
    }

    /// Appends the records from offset `from` on to `out`; `plain` is a buffer to reuse.
    pub(super) fn read_into(
        &self,
        from: Offset,
        plain: &mut Vec<u8>,
        out: &mut FetchedRecords,
    ) -> Result<(), String> {
        if self.computed_checksum() != self.checksum {
            return Err("the checksum of the stored records does not match".to_owned());
        }
        let (size, compressed) =
            lz4_flex::block::uncompressed_size(&self.bytes).map_err(|error| error.to_string())?;
        if size > PLAIN_BYTES_MAX {
            return Err(format!("{size} bytes of records in one blob"));
        }
        plain.clear();
        plain.resize(size, 0);
        let read = lz4_flex::block::decompress_into(compressed, plain)
            .map_err(|error| error.to_string())?;
        let mut rest = &plain[..read];
        for offset in self.first..self.end() {
            let (key, value) = take_record(&mut rest).ok_or("the records are cut short")?;
            if offset >= from {
                out.push(offset, key, value);
            }
        }
        if rest.is_empty() { Ok(()) } else { Err("bytes follow the last record".to_owned()) }
    }
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let key_len = usize::try_from(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?)).ok()?;
    let value_len =
        usize::try_from(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?)).ok()?;
    Some((rest.split_off(..key_len)?, rest.split_off(..value_len)?))
}

/// Collects records of one partition until they make a blob.
#[derive(Debug, Default)]
pub(super) struct BlobBuilder {
    plain: Vec<u8>,
    records: u32,
}

impl BlobBuilder {
    /// Appends a record, shorter than 4 GiB as everything that fits the queue.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a record is below 4 GiB");
        self.plain.extend_from_slice(&length(key).to_le_bytes());
        self.plain.extend_from_slice(&length(value).to_le_bytes());
        self.plain.extend_from_slice(key);
        self.plain.extend_from_slice(value);
        self.records += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= BLOB_RECORDS_MAX || self.plain.len() >= BLOB_BYTES_MAX
    }

    /// The records as a blob that starts at `first`; the builder is empty again and keeps its buffer.
    pub(super) fn finish(
        &mut self,
        partition: PartitionId,
        first: Offset,
        appended_at: i64,
    ) -> Blob {
        let bytes = lz4_flex::block::compress_prepend_size(&self.plain);
        let mut blob =
            Blob { partition, first, records: self.records, appended_at, checksum: 0, bytes };
        blob.checksum = blob.computed_checksum();
        self.plain.clear();
        self.records = 0;
        blob
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(records: &[(Vec<u8>, Vec<u8>)]) -> Blob {
        let mut builder = BlobBuilder::default();
        for (key, value) in records {
            builder.push(key, value);
        }
        builder.finish(3, 1000, 77)
    }

    type Owned = (Offset, Vec<u8>, Vec<u8>);

    fn read(blob: &Blob, from: Offset) -> Result<Vec<Owned>, String> {
        let mut out = FetchedRecords::new(blob.partition);
        blob.read_into(from, &mut Vec::new(), &mut out)?;
        Ok(out.iter().map(|r| (r.offset, r.key.to_vec(), r.value.to_vec())).collect())
    }

    #[test]
    fn reading_may_start_within_a_blob() {
        let records = [(b"a".to_vec(), b"1".to_vec()), (vec![], vec![]), (vec![], b"3".to_vec())];
        let blob = blob(&records);
        assert_eq!(blob.end(), 1003);
        let offsets = |from| read(&blob, from).unwrap().iter().map(|r| r.0).collect::<Vec<_>>();
        assert_eq!(offsets(0), [1000, 1001, 1002]);
        assert_eq!(offsets(1002), [1002]);
        assert_eq!(offsets(1003), [0; 0]);
    }

    #[test]
    fn a_blob_is_full_at_its_bounds() {
        let mut builder = BlobBuilder::default();
        builder.push(b"", &vec![0; BLOB_BYTES_MAX - 9]);
        assert!(!builder.is_full());
        builder.push(b"", b"");
        assert!(builder.is_full());
        assert_eq!(builder.finish(0, 0, 0).records, 2);
        assert!(builder.is_empty());
        for count in 1..=BLOB_RECORDS_MAX {
            builder.push(b"", b"");
            assert_eq!(builder.is_full(), count == BLOB_RECORDS_MAX);
        }
    }

    proptest! {
        #[test]
        fn records_survive_the_round_trip(records: Vec<(Vec<u8>, Vec<u8>)>) {
            let read = read(&blob(&records), 0).unwrap();
            let back: Vec<_> = read.into_iter().map(|(_, key, value)| (key, value)).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn no_damage_goes_unnoticed(records in proptest::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 1..9), at: usize, bit in 0_u32..8) {
            let good = blob(&records);
            let mut damaged = good.clone();
            let at = at % damaged.bytes.len();
            damaged.bytes[at] ^= 1_u8 << bit;
            let mut other = vec![damaged];
            other.push(Blob { first: 1001, ..good.clone() });
            other.push(Blob { partition: 4, ..good.clone() });
            other.push(Blob { records: good.records + 1, ..good.clone() });
            other.push(Blob { appended_at: 78, ..good });
            for blob in other {
                prop_assert!(read(&blob, 0).is_err(), "{:?}", blob);
            }
        }
    }
}
