//! The durable log between ingest-api and event-consumer: publish, fetch, commit.
//!
//! Two transports keep one contract: Apache Kafka (the only place that names rdkafka) and an
//! embedded one on SQLite. One event per record; `wire` is the format of a record's value.

pub mod embedded;
pub mod error;
pub mod kafka;
mod position;
pub mod reader;
pub mod record;
pub mod wire;

pub use error::{LogError, PublishError};
pub use reader::{EventLogReader, Scanned};
pub use record::{FetchedRecord, FetchedRecords, Record, RecordBatch};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A partition of the topic, from zero.
pub type PartitionId = u16;
/// A position in a partition, from zero and without gaps for the records of one producer batch.
pub type Offset = u64;

/// Records after which a poll returns what it has.
pub const POLL_RECORDS_MAX: usize = 10_000;
/// Bytes of keys and values after which a poll returns what it has.
pub const POLL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The writing end of a log topic. Shared by all requests.
pub trait EventLogProducer: Send + Sync + std::fmt::Debug {
    /// How many partitions the topic has; fixed for the life of the topic.
    fn partition_count(&self) -> u16;

    /// Appends `batch`; resolves with `Ok` only once every record is durable.
    ///
    /// Any error is ambiguous: some records may be in the log. Publishing the same events again is safe.
    /// A full queue is reported at once, never waited for.
    fn publish(&self, batch: RecordBatch) -> PublishFuture;

    /// Why nothing can be published at present, if that is known. Cheap; asked by readiness probes.
    fn unready(&self) -> Option<String>;

    /// Waits until everything published so far is durable or has failed, for at most `limit`.
    fn flush(
        &self,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>>;
}

/// The outcome of one [`EventLogProducer::publish`].
pub type PublishFuture = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

/// The reading end of a log topic for one member of a consumer group. Owned by one thread, which
/// must call [`EventLogConsumer::poll`] regularly to stay a member.
pub trait EventLogConsumer: Send {
    /// Waits up to `wait` for the next thing to happen.
    fn poll(&mut self, wait: Duration) -> Result<Polled, LogError>;

    /// Stops fetching from `partitions` until [`Self::resume`]; polling keeps the membership alive.
    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), LogError>;

    /// Fetches again from `partitions`, without losing or repeating a record.
    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), LogError>;

    /// Durably records the next offset to read of each partition. Returns once it is durable.
    fn commit(&mut self, next: &[(PartitionId, Offset)]) -> Result<(), LogError>;

    /// The next offset to read that was committed last, if any.
    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError>;

    /// The first offset still in the log, and the offset the next record will get.
    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError>;

    /// The first offset whose record was appended at or after `at`; the high watermark when there is none.
    fn offset_for_time(
        &mut self,
        partition: PartitionId,
        at: chrono::DateTime<chrono::Utc>,
    ) -> Result<Offset, LogError>;
}

/// The readable range `[low, high)` of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub low: Offset,
    pub high: Offset,
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled {
    /// The partitions now belong to this member, from the given offsets on.
    Assigned(Vec<Assignment>),
    /// The partitions belong to this member no longer; uncommitted work on them is to be dropped.
    Revoked(Vec<PartitionId>),
    /// Records, in offset order within each partition.
    Records(Vec<FetchedRecords>),
    /// Nothing within the time.
    Idle,
}

/// A partition that was assigned, and where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub partition: PartitionId,
    /// The committed offset, or the low watermark when nothing was committed yet.
    pub start: Offset,
}
