//! Reading any part of the log outside of a group: for proofs and replays, which commit nothing.

use crate::{FetchedRecords, LogError, Offset, PartitionId, Watermarks};
use chrono::{DateTime, Utc};

/// Reads any range of a log topic, beside its producers and its consumers.
pub trait EventLogReader: Send + std::fmt::Debug {
    /// How many partitions the topic has.
    fn partition_count(&self) -> u16;

    /// The first offset still in the log, and the offset the next record will get.
    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError>;

    /// The first offset whose record was appended at or after `at`; the high watermark when there is none.
    fn offset_for_time(
        &mut self,
        partition: PartitionId,
        at: DateTime<Utc>,
    ) -> Result<Offset, LogError>;

    /// The next offset that the consumer group has to read, if it has committed one.
    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError>;

    /// Some records of `[from, until)`, from the first on: at most those of a poll. `until` is at or
    /// below the high watermark.
    ///
    /// `LogError::Gap` when retention has deleted `from` meanwhile.
    fn read(
        &mut self,
        partition: PartitionId,
        from: Offset,
        until: Offset,
    ) -> Result<Scanned, LogError>;
}

/// What [`EventLogReader::read`] found.
#[derive(Clone, Debug)]
pub struct Scanned {
    pub records: FetchedRecords,
    /// Where reading goes on: every record before it, from the asked offset on, is in `records`.
    pub next: Offset,
}
