//! The reading end of the embedded log: the only member of its group, owner of every partition.

use super::queue::Request;
use super::{Damage, Handle, store};
use crate::position::{check_commit, starting_offset};
use crate::{
    Assignment, EventLogConsumer, FetchedRecords, LogError, Offset, POLL_BYTES_MAX,
    POLL_RECORDS_MAX, PartitionId, Polled, Watermarks,
};
use chrono::{DateTime, Utc};
use rusqlite::Connection;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Reads an [`super::EmbeddedLog`] for one group.
#[derive(Debug)]
pub struct EmbeddedConsumer {
    /// Before the handle: the writer empties the write-ahead log once no reader has it open.
    connection: Connection,
    handle: Arc<Handle>,
    group: String,
    /// Where each partition goes on; empty until the first poll has assigned them.
    cursors: Vec<Cursor>,
    /// The partition to read first, so that a busy one does not starve the others.
    turn: usize,
    /// A buffer for decompressed blobs.
    plain: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: Offset,
    paused: bool,
}

impl EmbeddedConsumer {
    pub(super) fn open(handle: Arc<Handle>, group: &str) -> Result<Self, LogError> {
        let connection = store::reader(&handle.path)?;
        handle.shared.queue.run(Request::RegisterGroup(group.to_owned()))?;
        let group = group.to_owned();
        let mut members = handle.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        if !members.insert(group.clone()) {
            return Err(LogError::Contract(format!("the group `{group}` already has a member")));
        }
        drop(members);
        Ok(Self { handle, group, connection, cursors: Vec::new(), turn: 0, plain: Vec::new() })
    }

    fn assign(&mut self) -> Result<Polled, LogError> {
        let shared = Arc::clone(&self.handle.shared);
        let assignments = shared
            .partition_ids()
            .map(|partition| {
                let committed = self.committed(partition)?;
                let start = starting_offset(partition, committed, shared.range(partition))?;
                Ok(Assignment { partition, start })
            })
            .collect::<Result<Vec<_>, LogError>>()?;
        let cursor = |assignment: &Assignment| Cursor { next: assignment.start, paused: false };
        self.cursors = assignments.iter().map(cursor).collect();
        Ok(Polled::Assigned(assignments))
    }

    /// Records of the partitions that have some, within the bounds of a poll.
    fn fetch(&mut self) -> Result<Vec<FetchedRecords>, LogError> {
        let readable: Vec<PartitionId> =
            self.handle.shared.partition_ids().filter(|p| self.is_readable(*p)).collect();
        let mut fetched = Vec::with_capacity(readable.len());
        let start = readable.partition_point(|partition| usize::from(*partition) < self.turn);
        let (mut records, mut bytes) = (0, 0);
        for (read, index) in (start..readable.len()).chain(0..start).enumerate() {
            let partition = readable[index];
            // What is left is shared by the partitions that are left.
            let left = readable.len() - read;
            let records_max = (POLL_RECORDS_MAX - records).div_ceil(left);
            let bytes_max = (POLL_BYTES_MAX - bytes).div_ceil(left);
            let some = self.fetch_partition(partition, records_max, bytes_max)?;
            self.turn = usize::from(partition) + 1;
            records += some.len();
            bytes += some.byte_len();
            fetched.push(some);
            if records >= POLL_RECORDS_MAX || bytes >= POLL_BYTES_MAX {
                break;
            }
        }
        // Cursors move only when nothing failed: no record is skipped that was not handed out.
        for some in &fetched {
            if let Some(last) = some.last_offset() {
                self.cursors[usize::from(some.partition)].next = last + 1;
            }
        }
        Ok(fetched)
    }

    fn fetch_partition(
        &mut self,
        partition: PartitionId,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<FetchedRecords, LogError> {
        let (from, high) =
            (self.cursors[usize::from(partition)].next, self.handle.shared.range(partition).high);
        let mut records = FetchedRecords::new(partition);
        let mut expected = from;
        let plain = &mut self.plain;
        store::read_blobs(&self.connection, partition, from, |blob| {
            if blob.first > expected {
                return Err(LogError::Gap { partition, expected, low: blob.first });
            }
            // Another reader of the database file would see it; it is not announced yet.
            if blob.first >= high {
                return Ok(false);
            }
            blob.read_into(from, plain, &mut records).map_err(|reason| LogError::Permanent {
                operation: "reading the embedded log",
                source: Damage { partition, offset: blob.first, reason }.into(),
            })?;
            expected = blob.end();
            Ok(records.len() < records_max && records.byte_len() < bytes_max)
        })?;
        if records.is_empty() {
            let reason = format!("no record from there on, below {high}");
            return Err(LogError::Permanent {
                operation: "reading the embedded log",
                source: Damage { partition, offset: from, reason }.into(),
            });
        }
        Ok(records)
    }

    fn is_readable(&self, partition: PartitionId) -> bool {
        is_readable(&self.handle, &self.cursors, partition)
    }

    fn set_paused(&mut self, partitions: &[PartitionId], paused: bool) -> Result<(), LogError> {
        for partition in partitions {
            self.cursors.get_mut(usize::from(*partition)).ok_or(LogError::Fenced)?.paused = paused;
        }
        Ok(())
    }
}

fn is_readable(handle: &Handle, cursors: &[Cursor], partition: PartitionId) -> bool {
    let cursor = cursors[usize::from(partition)];
    !cursor.paused && cursor.next < handle.shared.range(partition).high
}

impl EventLogConsumer for EmbeddedConsumer {
    fn poll(&mut self, wait: Duration) -> Result<Polled, LogError> {
        if self.cursors.is_empty() {
            return self.assign();
        }
        let (handle, cursors) = (&self.handle, &self.cursors);
        handle.shared.wait_for_append(Instant::now() + wait, || {
            handle.shared.partition_ids().any(|p| is_readable(handle, cursors, p))
        });
        let fetched = self.fetch()?;
        Ok(if fetched.is_empty() { Polled::Idle } else { Polled::Records(fetched) })
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        self.set_paused(partitions, false)
    }

    fn commit(&mut self, next: &[(PartitionId, Offset)]) -> Result<(), LogError> {
        for (partition, offset) in next {
            let cursor = self.cursors.get(usize::from(*partition)).ok_or(LogError::Fenced)?;
            check_commit(*partition, *offset, cursor.next)?;
        }
        if next.is_empty() {
            return Ok(());
        }
        let request = Request::Commit { group: self.group.clone(), next: next.to_vec() };
        self.handle.shared.queue.run(request)
    }

    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError> {
        self.handle.shared.checked_range(partition)?;
        store::committed_offset(&self.connection, &self.group, partition)
    }

    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError> {
        self.handle.shared.checked_range(partition)
    }

    fn offset_for_time(
        &mut self,
        partition: PartitionId,
        at: DateTime<Utc>,
    ) -> Result<Offset, LogError> {
        let range = self.handle.shared.checked_range(partition)?;
        store::offset_for_time(&self.connection, partition, range, at.timestamp_millis())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let members = self.handle.shared.members.lock();
        members.unwrap_or_else(PoisonError::into_inner).remove(&self.group);
    }
}
