//! Why the consumer ends before it was asked to.

use crate::partition::Halt;
use event_log::{LogError, Offset, PartitionId};

/// Each of these needs a person: going on would lose or double usage.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    #[error("the configuration cannot work: {0}")]
    Configuration(String),
    #[error("{operation} failed")]
    Log { operation: &'static str, source: LogError },
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error(
        "the store holds offset {highest_stored} of partition {partition}, but the log ends before offset {high}: the topic was created anew or lost records; \
         if it was created anew, raise its epoch (--topic-epoch) for all services, else restore the log"
    )]
    LogBehindStore { partition: PartitionId, highest_stored: Offset, high: Offset },
    #[error(
        "the store ends before offset {expected} of partition {partition}, but reading starts at {start}: the records from {expected} to {last} were not stored, and are gone if the log no longer has them; \
         if it has, set the group's offset to {expected}; else reconcile, and accept the loss by a row of ingest_batches with this range and 0 records",
        last = start - 1
    )]
    Gap { partition: PartitionId, expected: Offset, start: Offset },
    #[error(
        "partition {partition} was assigned, but the topic is configured to have {partition_count} partitions (--kafka-partitions)"
    )]
    UnknownPartition { partition: PartitionId, partition_count: u16 },
    /// Only in builds with debug assertions.
    #[error(transparent)]
    Injected(#[from] fault_injection::InjectedFault),
    #[error("the consumer's thread could not be started")]
    Thread(#[source] std::io::Error),
    #[error("the consumer's thread panicked")]
    Panicked,
}

/// Whether the log may do by itself what it failed to do now.
pub(crate) const fn passes(error: &LogError) -> bool {
    matches!(error, LogError::Transient { .. } | LogError::Fenced)
}
