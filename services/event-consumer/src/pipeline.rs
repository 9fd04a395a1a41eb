//! The loop of the consumer, on a thread of its own: the only place that knows the order of the steps.
//!
//! Two batches at most exist at a time: one is filled while the other is inserted.

mod inserting;
mod rebuilding;

use crate::batch::{Batch, SealedBatch, Tenure};
use crate::config::ConsumerConfig;
use crate::dedup::rebuild::{IndexTooLarge, Rebuilt};
use crate::dedup::{PartitionIndex, PositionOrder};
use crate::error::{ConsumerError, passes};
use crate::insert::Inserted;
use crate::liveness::ConsumerHealth;
use crate::metrics;
use crate::partition::{Partition, Round};
use crate::pauses::Pauses;
use crate::rebalance::Partitions;
use event_log::{
    Assignment, EventLogConsumer, FetchedRecords, LogError, Offset, PartitionId, Polled,
};
use inserting::Inserting;
use rebuilding::Rebuilding;
use service_kit::clock::Clock;
use service_kit::lifecycle::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use usage_store::UsageStore;

/// Longest wait for one thing, while others may be due.
const WAIT: Duration = Duration::from_millis(50);
/// Wait after the log has failed for now.
const LOG_RETRY: Duration = Duration::from_secs(1);
/// How often one partition's end is asked for, in turn.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// How often ids that are older than the horizon are let go.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of fetched records above which nothing more is fetched. Far above one poll.
const BACKLOG_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What a task on the runtime has to tell.
#[derive(Debug)]
pub(crate) enum Report {
    Inserted { batch: Box<SealedBatch>, outcome: Inserted },
    Rebuilt { tenure: Tenure, outcome: Result<Rebuilt, IndexTooLarge> },
}

/// Whether more is to be fetched.
enum Fetching {
    Now,
    /// There are records to decide, and room for them.
    DecideFirst,
    /// There are records and no room.
    WaitFirst,
}

/// What the pipeline works with.
pub(crate) struct Parts {
    pub(crate) log: Box<dyn EventLogConsumer>,
    pub(crate) store: UsageStore,
    pub(crate) config: ConsumerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) health: ConsumerHealth,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) struct Pipeline {
    parts: Parts,
    partitions: Partitions,
    batch: Batch,
    inserting: Inserting,
    rebuilding: Rebuilding,
    reports: (Sender<Report>, Receiver<Report>),
    pauses: Pauses,
    /// Since when a full batch waits for the one before it.
    blocked_since: Option<Instant>,
    /// The indexes have all the memory they may have; nothing is decided until they need less.
    full: bool,
    /// The ends of partitions, as far as they are known.
    ends: BTreeMap<PartitionId, Offset>,
    lag_turn: PartitionId,
    next_lag: Instant,
    next_forget: Instant,
    next_commit: Instant,
    /// A buffer for identity keys.
    key: Vec<u8>,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        metrics::index_limits(parts.config.horizon, parts.config.index_bytes_max);
        Self {
            partitions: Partitions::default(),
            batch: Batch::new(parts.config.batch),
            inserting: Inserting::default(),
            rebuilding: Rebuilding::default(),
            reports: std::sync::mpsc::channel(),
            pauses: Pauses::default(),
            blocked_since: None,
            full: false,
            ends: BTreeMap::new(),
            lag_turn: 0,
            next_lag: now,
            next_forget: now,
            next_commit: now,
            key: Vec::with_capacity(1024),
            parts,
        }
    }

    /// Runs until shutdown, or until something happened that a person has to look at.
    pub(crate) fn run(&mut self) -> Result<(), ConsumerError> {
        while !self.parts.shutdown.is_cancelled() {
            self.poll()?;
            self.decide()?;
            self.send_when_due();
            self.take_reports()?;
            self.commit()?;
            self.steer()?;
            self.observe()?;
        }
        self.drain()
    }

    /// Takes records, assignments and revocations from the log.
    fn poll(&mut self) -> Result<(), ConsumerError> {
        match self.fetching() {
            Fetching::DecideFirst => return Ok(()),
            Fetching::WaitFirst => return self.wait_for_report(WAIT),
            Fetching::Now => {}
        }
        match self.parts.log.poll(WAIT) {
            Ok(Polled::Assigned(assignments)) => self.assigned(&assignments),
            Ok(Polled::Revoked(partitions)) => {
                self.revoked(&partitions);
                Ok(())
            }
            Ok(Polled::Records(records)) => {
                self.received(records);
                Ok(())
            }
            Ok(Polled::Idle) => Ok(()),
            Err(error) => {
                self.tolerate("reading the log", error)?;
                self.wait_for_report(LOG_RETRY)
            }
        }
    }

    /// While a full batch waits, records would only pile up. Once the partitions are paused, polling
    /// brings none and keeps the membership alive.
    fn fetching(&self) -> Fetching {
        let waiting = |p: &Partition| p.has_work() && !self.pauses.contains(p.tenure().partition);
        let undecided = self.partitions.iter().any(waiting);
        if undecided && !self.full && !self.batch.is_full() {
            Fetching::DecideFirst
        } else if undecided || self.partitions.backlog_bytes() > BACKLOG_BYTES_MAX {
            Fetching::WaitFirst
        } else {
            Fetching::Now
        }
    }

    fn assigned(&mut self, assignments: &[Assignment]) -> Result<(), ConsumerError> {
        let partition_count = self.parts.config.source.partition_count;
        if let Some(Assignment { partition, .. }) =
            assignments.iter().find(|assignment| assignment.partition >= partition_count)
        {
            return Err(ConsumerError::UnknownPartition { partition: *partition, partition_count });
        }
        let again: Vec<_> = assignments
            .iter()
            .map(|a| a.partition)
            .filter(|p| self.partitions.get_mut(*p).is_some())
            .collect();
        self.revoked(&again);
        let to_rebuild = self.partitions.assign(assignments);
        tracing::info!(
            partitions = assignments.len(),
            to_rebuild = to_rebuild.len(),
            "partitions assigned"
        );
        for Assignment { partition, .. } in assignments {
            self.pauses.forget(*partition);
        }
        self.rebuilding.add(to_rebuild);
        Ok(())
    }

    /// Drops everything of the partitions that is not committed. Who has them next reads it again,
    /// and what we did insert of it is the same bytes.
    fn revoked(&mut self, partitions: &[PartitionId]) {
        if partitions.is_empty() {
            return;
        }
        self.partitions.revoke(partitions);
        for partition in partitions {
            self.batch.abandon(*partition);
            self.pauses.forget(*partition);
            self.ends.remove(partition);
            metrics::forget_lag(*partition);
        }
        self.inserting.abandon_unless_held(&self.partitions);
        self.rebuilding.abandon_unless_held(&self.partitions);
        tracing::info!(partitions = partitions.len(), "partitions revoked");
    }

    fn received(&mut self, fetched: Vec<FetchedRecords>) {
        for records in fetched {
            // The log hands out nothing of a partition that it has taken back.
            if let Some(partition) = self.partitions.get_mut(records.partition) {
                partition.receive(records);
            }
        }
    }

    /// Turns records into rows, duplicates, conflicts and dead letters.
    fn decide(&mut self) -> Result<(), ConsumerError> {
        if self.full {
            return Ok(());
        }
        let mut round = Round {
            source: &self.parts.config.source,
            at: self.parts.clock.now(),
            now: Instant::now(),
            key: &mut self.key,
        };
        for partition in self.partitions.iter_mut() {
            partition.decide_backlog(&mut self.batch, &mut round)?;
        }
        if self.partitions.index_bytes() > self.parts.config.index_bytes_max {
            self.make_room();
        }
        Ok(())
    }

    /// Frees what is older than the horizon; when that is not enough, nothing is decided any more.
    fn make_room(&mut self) {
        self.forget();
        self.partitions.indexes_mut().for_each(PartitionIndex::sweep);
        self.set_full(self.partitions.index_bytes() > self.parts.config.index_bytes_max);
    }

    fn set_full(&mut self, full: bool) {
        let reason = full.then(|| {
            format!(
                "the dedup index has reached its limit of {} bytes with {} ids: raise --dedup-memory, run more consumers, or shorten --dedup-horizon; \
                 consumption waits, as forgetting ids would bill events twice",
                self.parts.config.index_bytes_max,
                self.partitions.ids()
            )
        });
        if let Some(reason) = reason.as_deref().filter(|_| !self.full) {
            tracing::error!("{reason}");
        }
        self.full = full;
        self.parts.health.stall(reason);
    }

    /// Starts the insert of a batch that is full or old, once the one before it is through.
    fn send_when_due(&mut self) {
        let now = Instant::now();
        if self.inserting.is_busy() || !self.batch.is_due(now) {
            let blocked = self.inserting.is_busy() && self.batch.is_full();
            self.blocked_since = if blocked { self.blocked_since.or(Some(now)) } else { None };
            return;
        }
        self.blocked_since = None;
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        let batch = self.batch.seal(&self.parts.config.source, self.parts.clock.now());
        self.inserting.start(batch, &self.parts, self.reports.0.clone(), now);
    }

    /// Starts the next rebuild, and takes in what the tasks on the runtime have done.
    fn take_reports(&mut self) -> Result<(), ConsumerError> {
        while let Ok(report) = self.reports.1.try_recv() {
            self.take(report)?;
        }
        if !self.full {
            let bytes_max =
                self.parts.config.index_bytes_max.saturating_sub(self.partitions.index_bytes());
            self.rebuilding.start_next(&self.parts, &self.reports.0, bytes_max);
        }
        Ok(())
    }

    fn wait_for_report(&mut self, limit: Duration) -> Result<(), ConsumerError> {
        match self.reports.1.recv_timeout(limit) {
            Ok(report) => self.take(report),
            Err(_) => Ok(()),
        }
    }

    fn take(&mut self, report: Report) -> Result<(), ConsumerError> {
        match report {
            Report::Inserted { batch, outcome } => {
                let took = self.inserting.finish(Instant::now());
                if outcome == Inserted::Confirmed {
                    self.partitions.inserted(&batch.ranges);
                    self.next_commit = Instant::now();
                    self.tell_inserted(&batch, took);
                }
                Ok(())
            }
            Report::Rebuilt { tenure, outcome } => {
                self.rebuilding.finish(tenure);
                if !self.partitions.holds(tenure) {
                    return Ok(());
                }
                match outcome {
                    Ok(rebuilt) => self.rebuilt(tenure, rebuilt),
                    Err(IndexTooLarge) => {
                        self.rebuilding.add(vec![tenure]);
                        self.set_full(true);
                        Ok(())
                    }
                }
            }
        }
    }

    fn tell_inserted(&self, batch: &SealedBatch, took: Duration) {
        let lag = batch
            .oldest_accepted_at
            .and_then(|oldest| (self.parts.clock.now() - oldest).to_std().ok());
        metrics::inserted(&batch.tally, took, lag);
        tracing::info!(
            stored = batch.tally.stored,
            duplicates = batch.tally.duplicates,
            conflicts = batch.tally.conflicts,
            dead_letters = batch.tally.dead_letters,
            bytes = batch.rows.bytes.len(),
            partitions = batch.ranges.len(),
            milliseconds = took.as_millis(),
            "batch inserted"
        );
    }

    /// Opens a partition for decisions, unless its log is not the one the store was filled from.
    fn rebuilt(&mut self, tenure: Tenure, rebuilt: Rebuilt) -> Result<(), ConsumerError> {
        let Rebuilt { index, highest_stored } = rebuilt;
        let high = match self.parts.log.watermarks(tenure.partition) {
            Ok(range) => range.high,
            Err(error) => {
                self.rebuilding.add(vec![tenure]);
                self.tolerate("reading the log's range", error)?;
                return self.wait_for_report(LOG_RETRY);
            }
        };
        if let Some(highest_stored) = highest_stored.filter(|stored| *stored >= high) {
            return Err(ConsumerError::LogBehindStore {
                partition: tenure.partition,
                highest_stored,
                high,
            });
        }
        metrics::rebuilt();
        tracing::info!(partition = tenure.partition, ids = index.len(), "dedup index rebuilt");
        self.ends.insert(tenure.partition, high);
        if let Some(partition) = self.partitions.get_mut(tenure.partition) {
            partition.set_index(index);
        }
        Ok(())
    }

    /// Commits what is stored. A commit that fails is not fatal: the next one covers it, and records
    /// that are read again become the same rows.
    fn commit(&mut self) -> Result<(), ConsumerError> {
        let due = self.partitions.to_commit();
        let now = Instant::now();
        if due.is_empty() || now < self.next_commit {
            return Ok(());
        }
        match self.parts.log.commit(&due) {
            Ok(()) => {
                self.partitions.committed();
                self.parts.health.progressed(now);
                Ok(())
            }
            Err(error) => {
                metrics::commit_failed();
                self.next_commit = now + LOG_RETRY;
                self.tolerate("committing offsets", error)
            }
        }
    }

    fn tolerate(&self, operation: &'static str, error: LogError) -> Result<(), ConsumerError> {
        if passes(&error) {
            tracing::warn!(operation, error = chain(&error), "the log failed for now");
            return Ok(());
        }
        Err(ConsumerError::Log { operation, source: error })
    }

    /// Pauses partitions that cannot be decided now, and resumes those that can.
    fn steer(&mut self) -> Result<(), ConsumerError> {
        let blocked = self
            .blocked_since
            .is_some_and(|since| since.elapsed() >= self.parts.config.pause_after);
        let pause_all = blocked || self.full;
        let wanted: BTreeSet<_> = self
            .partitions
            .iter()
            .filter(|p| pause_all || p.index().is_none())
            .map(|p| p.tenure().partition)
            .collect();
        match self.pauses.apply(self.parts.log.as_mut(), wanted) {
            Ok(()) => Ok(()),
            Err(error) => self.tolerate("pausing partitions", error),
        }
    }

    /// Looks after lag, memory and liveness.
    fn observe(&mut self) -> Result<(), ConsumerError> {
        let now = Instant::now();
        if now >= self.next_forget {
            self.next_forget = now + FORGET_INTERVAL;
            if self.full { self.make_room() } else { self.forget() }
        }
        if now >= self.next_lag {
            self.next_lag = now + LAG_INTERVAL;
            metrics::index(self.partitions.ids(), self.partitions.index_bytes());
            self.measure_lag()?;
        }
        let behind = self.is_behind();
        let ready =
            !self.partitions.is_empty() && self.partitions.iter().all(|p| p.index().is_some());
        if let Some(failure) = self.parts.health.observe(behind, ready, now) {
            tracing::error!("the consumer makes no progress: {failure}");
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        let unread =
            |p: &Partition| self.ends.get(&p.tenure().partition).is_some_and(|end| p.next() < *end);
        self.inserting.is_busy()
            || !self.batch.is_empty()
            || !self.partitions.to_commit().is_empty()
            || self.partitions.iter().any(|p| p.index().is_none() || p.has_work() || unread(p))
    }

    /// Asks for the end of one partition. One at a time, as the answer may take long.
    fn measure_lag(&mut self) -> Result<(), ConsumerError> {
        let Some(partition) = self.partitions.following(self.lag_turn) else { return Ok(()) };
        self.lag_turn = partition;
        match self.parts.log.watermarks(partition) {
            Ok(range) => {
                self.ends.insert(partition, range.high);
                if let Some(owned) = self.partitions.get_mut(partition) {
                    metrics::lag(partition, range.high.saturating_sub(owned.next()));
                }
                Ok(())
            }
            Err(error) => {
                // The next question may take as long as this one did.
                self.next_lag = Instant::now() + 10 * LAG_INTERVAL;
                self.tolerate("reading the log's range", error)
            }
        }
    }

    fn forget(&mut self) {
        let horizon_start = self.parts.clock.now() - self.parts.config.horizon;
        self.partitions.indexes_mut().for_each(|index| index.forget_before(horizon_start));
    }

    /// Finishes what was read within the time that shutdown allows. What is not finished is read
    /// again by whoever comes next.
    fn drain(&mut self) -> Result<(), ConsumerError> {
        let deadline = Instant::now() + self.parts.config.drain_timeout;
        while self.inserting.is_busy()
            || !self.batch.is_empty()
            || !self.partitions.to_commit().is_empty()
        {
            let now = Instant::now();
            if now >= deadline {
                tracing::warn!(
                    "the last batch was not stored in time; it is read again at the next start"
                );
                break;
            }
            if !self.inserting.is_busy() && !self.batch.is_empty() {
                self.send(now);
            }
            self.wait_for_report(WAIT)?;
            self.commit()?;
        }
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.inserting.abandon();
        self.rebuilding.abandon();
    }
}

/// For an index of the topic that `config` names.
pub(crate) fn order(config: &ConsumerConfig) -> PositionOrder {
    PositionOrder::new(config.source.epoch)
}
