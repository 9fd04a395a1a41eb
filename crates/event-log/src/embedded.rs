//! The embedded transport: the log in one SQLite database of this process, durable before it acknowledges.
//!
//! One writer thread drains all queued publishes into one transaction (group commit) and stores one
//! lz4 blob per partition and group. Readers have connections of their own and are woken in-process.

mod blob;
mod consumer;
mod producer;
mod queue;
mod reader;
mod store;
mod writer;

pub use consumer::EmbeddedConsumer;
pub use producer::EmbeddedProducer;
pub use reader::EmbeddedReader;

use crate::{LogError, Offset, PartitionId, Watermarks};
use queue::Queue;
use service_kit::clock::Clock;
use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Store;

/// Most partitions of an embedded log.
pub const PARTITIONS_MAX: u16 = 1024;

/// Where an embedded log lives and what bounds it.
#[derive(Clone, Debug)]
pub struct EmbeddedLogOptions {
    /// The directory of the log; created when absent, locked by the process that has it open.
    pub path: PathBuf,
    /// 1 to [`PARTITIONS_MAX`]; fixed when the log is created.
    pub partitions: u16,
    /// Bytes of keys and values that wait to become durable; more are refused with `QueueFull`.
    pub queue_bytes_max: usize,
    /// Batches that wait to become durable; more are refused with `QueueFull`.
    pub queue_batches_max: usize,
    /// How long records are kept that every group has committed.
    pub retention: Duration,
    /// Bytes on disk beyond which committed records go before their time.
    pub retained_bytes_max: u64,
    /// Bytes on disk beyond which nothing is appended; records that were not read are never deleted.
    /// Offsets may take up to 4 MiB more.
    pub disk_bytes_max: u64,
    /// How often the retention is enforced.
    pub sweep_interval: Duration,
    /// Gives records their append time.
    pub clock: Arc<dyn Clock>,
}

impl EmbeddedLogOptions {
    /// The defaults: 64 MiB and 10,000 batches queued; 24 hours or 4 GiB kept; at most 64 GiB on disk.
    pub fn new(path: impl Into<PathBuf>, partitions: u16, clock: Arc<dyn Clock>) -> Self {
        Self {
            path: path.into(),
            partitions,
            queue_bytes_max: 64 * 1024 * 1024,
            queue_batches_max: 10_000,
            retention: Duration::from_secs(24 * 60 * 60),
            retained_bytes_max: 4 * 1024 * 1024 * 1024,
            disk_bytes_max: 64 * 1024 * 1024 * 1024,
            sweep_interval: Duration::from_secs(10),
            clock,
        }
    }
}

/// An open log. Clones share it; the last clone, producer or consumer to go closes it cleanly.
#[derive(Clone, Debug)]
pub struct EmbeddedLog {
    handle: Arc<Handle>,
}

impl EmbeddedLog {
    /// Opens the log, and creates it when it is absent.
    ///
    /// `LogError::Contract` when another process has it open or it has another partition count.
    pub fn open(options: EmbeddedLogOptions) -> Result<Self, LogError> {
        if !(1..=PARTITIONS_MAX).contains(&options.partitions) {
            let detail = format!("an embedded log has 1 to {PARTITIONS_MAX} partitions");
            return Err(LogError::Contract(detail));
        }
        let lock = lock(&options.path)?;
        let store = Store::open(&options)?;
        let shared = Arc::new(Shared::new(&store, &options)?);
        let writer = writer::spawn(store, Arc::clone(&shared), &options)?;
        let handle =
            Handle { shared, writer: Mutex::new(Some(writer)), path: options.path, _lock: lock };
        Ok(Self { handle: Arc::new(handle) })
    }

    pub fn producer(&self) -> EmbeddedProducer {
        EmbeddedProducer::new(Arc::clone(&self.handle))
    }

    /// The only member of `group`, which owns every partition.
    ///
    /// `LogError::Contract` while the group already has a member. From the first time on, retention
    /// spares what the group has not committed, until [`Self::forget_group`].
    pub fn consumer(&self, group: &str) -> Result<EmbeddedConsumer, LogError> {
        EmbeddedConsumer::open(Arc::clone(&self.handle), group)
    }

    /// Forgets the offsets of a group that no longer reads, so that retention stops waiting for it.
    ///
    /// `LogError::Contract` while the group has a member.
    pub fn forget_group(&self, group: &str) -> Result<(), LogError> {
        let members = self.handle.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.contains(group) {
            return Err(LogError::Contract(format!("the group `{group}` has a member")));
        }
        drop(members);
        self.handle.shared.queue.run(queue::Request::ForgetGroup(group.to_owned()))
    }

    /// Deletes what retention allows now, instead of at its next interval; a bounded part of it.
    pub fn sweep(&self) -> Result<(), LogError> {
        self.handle.shared.queue.run(queue::Request::Sweep)
    }
}

/// Keeps everybody from writing to a log, for as long as it lives. Unlike an open log it deletes nothing: no
/// record expires meanwhile.
#[derive(Debug)]
pub struct EmbeddedLogLock {
    _lock: File,
}

impl EmbeddedLogLock {
    /// `LogError::Contract` when a process has the log open.
    pub fn take(path: &std::path::Path) -> Result<Self, LogError> {
        Ok(Self { _lock: lock(path)? })
    }
}

/// Takes the directory's lock, which the system frees when the process ends, however it ends.
fn lock(path: &std::path::Path) -> Result<File, LogError> {
    let failed = |source: std::io::Error| LogError::Permanent {
        operation: "opening the directory of the embedded log",
        source: source.into(),
    };
    std::fs::create_dir_all(path).map_err(failed)?;
    // SQLite makes its files durable in their directory; that the directory exists is for us to do.
    if let Some(parent) = path.canonicalize().map_err(failed)?.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::Error(source)) => Err(failed(source)),
        Err(TryLockError::WouldBlock) => Err(LogError::Contract(format!(
            "the embedded log in {} is open in another process; stop that one, or use another directory",
            path.display()
        ))),
    }
}

/// Keeps the writer thread and the lock for as long as anybody uses the log.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    _lock: File,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the embedded log panicked");
        }
    }
}

/// What the writer, the producers and the consumers share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    partitions: Vec<Range>,
    /// Counts the groups appended, for waiting consumers.
    appended: Mutex<u64>,
    on_append: Condvar,
    /// Why the last append failed, until one succeeds.
    trouble: Mutex<Option<String>>,
    /// Groups that have a member now.
    members: Mutex<HashSet<String>>,
}

/// The readable offsets of a partition; the high one moves only after its records are durable.
#[derive(Debug)]
struct Range {
    low: AtomicU64,
    high: AtomicU64,
}

impl Shared {
    fn new(store: &Store, options: &EmbeddedLogOptions) -> Result<Self, LogError> {
        let ranges = store.ranges()?.into_iter();
        let partitions =
            ranges.map(|range| Range { low: range.low.into(), high: range.high.into() }).collect();
        Ok(Self {
            queue: Queue::new(options.queue_bytes_max, options.queue_batches_max),
            partitions,
            appended: Mutex::new(0),
            on_append: Condvar::new(),
            trouble: Mutex::new(None),
            members: Mutex::new(HashSet::new()),
        })
    }

    fn partition_count(&self) -> u16 {
        u16::try_from(self.partitions.len()).expect("a log has at most PARTITIONS_MAX partitions")
    }

    fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        0..self.partition_count()
    }

    /// The readable range of a partition that exists.
    fn range(&self, partition: PartitionId) -> Watermarks {
        let range = &self.partitions[usize::from(partition)];
        let low = range.low.load(Ordering::Acquire);
        // Read second, so that it is never below the low one.
        Watermarks { low, high: range.high.load(Ordering::Acquire) }
    }

    fn publish_ranges(&self, ranges: &[Watermarks]) {
        for (shared, range) in self.partitions.iter().zip(ranges) {
            shared.high.store(range.high, Ordering::Release);
            shared.low.store(range.low, Ordering::Release);
        }
        *self.appended.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.on_append.notify_all();
    }

    /// Waits until `ready` or the deadline; checked again after every append.
    fn wait_for_append(&self, deadline: Instant, ready: impl Fn() -> bool) {
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.on_append.wait_timeout(appended, left);
            appended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The range of a partition, which the caller named and may not exist.
    fn checked_range(&self, partition: PartitionId) -> Result<Watermarks, LogError> {
        if partition < self.partition_count() {
            return Ok(self.range(partition));
        }
        Err(no_such_partition(partition, self.partition_count()))
    }
}

fn no_such_partition(partition: PartitionId, count: u16) -> LogError {
    LogError::Permanent {
        operation: "finding the partition",
        source: format!("partition {partition} does not exist; the log has {count}").into(),
    }
}

/// A position that cannot be read; people need it to look at the damage.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition} of the embedded log is damaged at offset {offset}: {reason}")]
struct Damage {
    partition: PartitionId,
    offset: Offset,
    reason: String,
}
