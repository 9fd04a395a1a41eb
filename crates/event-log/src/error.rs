//! What can go wrong with the log. Whether to retry is decided here, where a vendor's error enters.

/// A publish that was not confirmed. Some of its records may be in the log or get there later, whatever
/// the variant; publishing the same events again is safe.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The bounded queue has no room for the whole batch. On Kafka, the records before the one that did
    /// not fit stay queued and may still be delivered; the embedded log queues all of a batch or nothing.
    #[error("the publish queue is full")]
    QueueFull,
    /// The log did not confirm every record in time, or refused one.
    #[error("the log did not confirm the records")]
    Unconfirmed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The producer can never publish again; the process has to be restarted.
    #[error("the producer failed for good")]
    Fatal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A failed operation of the reading end or of the topic's set-up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The topic does not keep the contract the service depends on; the text says what to change.
    #[error("the topic breaks the contract: {0}")]
    Contract(String),
    /// The log no longer holds records that were not consumed yet.
    #[error(
        "partition {partition} starts at offset {low}, but {expected} is the next to read: the records between them are gone"
    )]
    Gap { partition: u16, expected: u64, low: u64 },
    /// The member lost the partition, or the group rebalances; the work is taken over elsewhere.
    #[error("the partition belongs to another member")]
    Fenced,
    /// The operation may succeed when tried again.
    #[error("{operation} failed for now")]
    Transient { operation: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// The operation will not succeed without a change from outside.
    #[error("{operation} failed")]
    Permanent { operation: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}
