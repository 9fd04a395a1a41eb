//! Reads an embedded log beside the process that has it open: SQLite lets readers in at any time.

use super::{Damage, no_such_partition, store};
use crate::reader::{EventLogReader, Scanned};
use crate::{
    FetchedRecords, LogError, Offset, POLL_BYTES_MAX, POLL_RECORDS_MAX, PartitionId, Watermarks,
};
use chrono::{DateTime, Utc};
use rusqlite::Connection;
use std::path::Path;

/// Reads an [`super::EmbeddedLog`], whether a process has it open or not.
#[derive(Debug)]
pub struct EmbeddedReader {
    connection: Connection,
    group: String,
    partitions: u16,
    /// A buffer for decompressed blobs.
    plain: Vec<u8>,
}

impl EmbeddedReader {
    /// Opens the log in the directory `path`. `group` is the one whose committed offsets are asked for.
    ///
    /// `LogError::Contract` when there is no log.
    pub fn open(path: &Path, group: &str) -> Result<Self, LogError> {
        let (connection, partitions) = store::reader_beside(path)?;
        Ok(Self { connection, group: group.to_owned(), partitions, plain: Vec::new() })
    }

    fn check(&self, partition: PartitionId) -> Result<(), LogError> {
        if partition < self.partitions {
            return Ok(());
        }
        Err(no_such_partition(partition, self.partitions))
    }
}

impl EventLogReader for EmbeddedReader {
    fn partition_count(&self) -> u16 {
        self.partitions
    }

    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError> {
        self.check(partition)?;
        store::range(&self.connection, partition)
            .map_err(store::failed("reading the embedded log's offsets"))
    }

    fn offset_for_time(
        &mut self,
        partition: PartitionId,
        at: DateTime<Utc>,
    ) -> Result<Offset, LogError> {
        let range = self.watermarks(partition)?;
        store::offset_for_time(&self.connection, partition, range, at.timestamp_millis())
    }

    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError> {
        self.check(partition)?;
        store::committed_offset(&self.connection, &self.group, partition)
    }

    fn read(
        &mut self,
        partition: PartitionId,
        from: Offset,
        until: Offset,
    ) -> Result<Scanned, LogError> {
        self.check(partition)?;
        let mut records = FetchedRecords::new(partition);
        let mut next = from;
        let plain = &mut self.plain;
        store::read_blobs(&self.connection, partition, from, |blob| {
            if blob.first >= until {
                return Ok(false);
            }
            if blob.first > next {
                return Err(LogError::Gap { partition, expected: next, low: blob.first });
            }
            blob.read_into(from, plain, &mut records).map_err(|reason| LogError::Permanent {
                operation: "reading the embedded log",
                source: Damage { partition, offset: blob.first, reason }.into(),
            })?;
            next = blob.end();
            Ok(records.len() < POLL_RECORDS_MAX && records.byte_len() < POLL_BYTES_MAX)
        })?;
        if next == from && from < until {
            // Retention may have deleted the last record that there was.
            let low = self.watermarks(partition)?.low;
            return Err(LogError::Gap { partition, expected: from, low });
        }
        records.truncate(until);
        Ok(Scanned { records, next: next.min(until) })
    }
}
