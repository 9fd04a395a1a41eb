//! The loop of the consumer, on a thread of its own: the only place that knows the order of the steps.
//!
//! Two batches at most exist at a time: one is filled while the other is inserted.

mod inserting;
mod membership;
mod rebuilding;
mod upkeep;

use crate::batch::{Batch, SealedBatch, Tenure};
use crate::config::ConsumerConfig;
use crate::dedup::PositionOrder;
use crate::dedup::rebuild::{IndexTooLarge, Rebuilt};
use crate::error::{ConsumerError, passes};
use crate::insert::Inserted;
use crate::liveness::ConsumerHealth;
use crate::metrics;
use crate::partition::{Partition, Round};
use crate::pauses::Pauses;
use crate::rebalance::Partitions;
use crate::too_large::TooLarge;
use crate::trusted_time::TrustedTime;
use event_log::{EventLogConsumer, LogError, Offset, PartitionId, Polled};
use fault_injection::{InjectedFault, Point, Sabotage, reach, sabotaged};
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
/// How often [`Sabotage::AutoCommit`] commits.
const AUTO_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Wait after the log has failed for now.
const LOG_RETRY: Duration = Duration::from_secs(1);
/// Bytes of fetched records above which nothing more is fetched. Far above one poll.
const BACKLOG_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What a task on the runtime has to tell.
#[derive(Debug)]
pub(crate) enum Report {
    Inserted { batch: Box<SealedBatch>, outcome: Inserted },
    Rebuilt { tenures: Vec<Tenure>, outcome: Result<BTreeMap<PartitionId, Rebuilt>, IndexTooLarge> },
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
    /// Indexes that are complete, and whose partitions are to be opened for decisions.
    opening: Vec<(Tenure, Rebuilt)>,
    reports: (Sender<Report>, Receiver<Report>),
    pauses: Pauses,
    /// Since when a full batch waits for the one before it.
    blocked_since: Option<Instant>,
    /// The indexes have all the memory they may have; nothing is decided until they need less.
    full: bool,
    /// The rebuild for which there was not enough memory. It keeps the pipeline full until it has succeeded, or its
    /// partition is lost.
    too_large: Option<TooLarge>,
    /// The ends of partitions, as far as they are known.
    ends: BTreeMap<PartitionId, Offset>,
    lag_turn: PartitionId,
    next_lag: Instant,
    next_forget: Instant,
    next_commit: Instant,
    /// A buffer for identity keys.
    key: Vec<u8>,
    time: TrustedTime,
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
            opening: Vec::new(),
            reports: std::sync::mpsc::channel(),
            pauses: Pauses::default(),
            blocked_since: None,
            full: false,
            too_large: None,
            ends: BTreeMap::new(),
            lag_turn: 0,
            next_lag: now,
            next_forget: now,
            next_commit: now,
            key: Vec::with_capacity(1024),
            time: TrustedTime::new(parts.clock.now(), now),
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
            Ok(Polled::Assigned(assignments)) => {
                reach(Point::PartitionsAssigned)?;
                self.assigned(&assignments)
            }
            Ok(Polled::Revoked(partitions)) => {
                self.revoked(&partitions);
                Ok(())
            }
            Ok(Polled::Records(records)) => {
                reach(Point::RecordsPolled)?;
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

    /// Turns records into rows, duplicates, conflicts and dead letters.
    fn decide(&mut self) -> Result<(), ConsumerError> {
        if self.full {
            return Ok(());
        }
        let now = Instant::now();
        let mut round = Round {
            source: &self.parts.config.source,
            at: self.time.earliest(self.parts.clock.now(), now),
            at_latest: self.time.latest(now),
            now,
            key: &mut self.key,
        };
        for partition in self.partitions.iter_mut() {
            partition.decide_backlog(&mut self.batch, &mut round)?;
        }
        if self.partitions.index_bytes() > self.parts.config.index_bytes_max {
            self.make_room();
        }
        if !self.batch.is_empty() {
            reach(Point::RecordsDecided)?;
        }
        Ok(())
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
        // The next rebuild is told by the audit when inserts were: not by a clock that has jumped ahead.
        let at = self.time.earliest(self.parts.clock.now(), now);
        let batch = self.batch.seal(&self.parts.config.source, at);
        if sabotaged(Sabotage::CommitBeforeInsert) {
            self.partitions.inserted(&batch.ranges);
        }
        self.inserting.start(batch, &self.parts, self.reports.0.clone(), now);
    }

    /// Starts the next rebuild, and takes in what the tasks on the runtime have done.
    fn take_reports(&mut self) -> Result<(), ConsumerError> {
        while let Ok(report) = self.reports.1.try_recv() {
            self.take(report)?;
        }
        self.open_rebuilt()?;
        if !self.full || self.too_large.as_ref().is_some_and(|rebuild| rebuild.again) {
            let now = Instant::now();
            let at = (self.time.earliest(self.parts.clock.now(), now), self.time.latest(now));
            self.rebuilding.start_next(&self.parts, &self.reports.0, at, self.room());
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
            Report::Rebuilt { tenures, outcome } => {
                self.rebuilding.finish(&tenures);
                self.take_rebuilt(tenures, outcome);
                Ok(())
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

    /// Commits what is stored. A commit that fails is not fatal: the next one covers it, and records
    /// that are read again become the same rows.
    fn commit(&mut self) -> Result<(), ConsumerError> {
        let on_timer = sabotaged(Sabotage::AutoCommit);
        let due = if on_timer { self.partitions.decided() } else { self.partitions.to_commit() };
        let now = Instant::now();
        if due.is_empty() || now < self.next_commit {
            return Ok(());
        }
        match self.commit_offsets(&due) {
            Ok(()) => {
                self.partitions.committed();
                self.parts.health.progressed(now);
                if on_timer {
                    self.next_commit = now + AUTO_COMMIT_INTERVAL;
                }
                Ok(())
            }
            Err(error) => {
                metrics::commit_failed();
                self.next_commit = now + LOG_RETRY;
                self.tolerate("committing offsets", error)
            }
        }
    }

    fn commit_offsets(&mut self, due: &[(PartitionId, Offset)]) -> Result<(), LogError> {
        let injected = |fault: InjectedFault| LogError::Transient {
            operation: "committing offsets",
            source: fault.into(),
        };
        reach(Point::CommitDue).map_err(injected)?;
        self.parts.log.commit(due)?;
        reach(Point::OffsetsCommitted).map_err(injected)
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
