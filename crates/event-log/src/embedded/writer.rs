//! The writer thread: takes what is queued, makes it durable in one transaction, answers everybody.
//!
//! Publishes that cannot be written take nothing down with them: commits and sweeps are what makes
//! room on a full log, so they then get a transaction of their own.

use super::blob::BlobBuilder;
use super::queue::{Group, Publish, Request, Task};
use super::store::{self, Expiry, Room, Store};
use super::{EmbeddedLogOptions, Shared};
use crate::{LogError, Offset, PublishError, RecordBatch, Watermarks};
use chrono::TimeDelta;
use fault_injection::{InjectedFault, Point, reach};
use rusqlite::Transaction;
use service_kit::clock::Clock;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often an unhealthy log is tried again while nothing is published.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn spawn(
    store: Store,
    shared: Arc<Shared>,
    options: &EmbeddedLogOptions,
) -> Result<JoinHandle<()>, LogError> {
    let writer = Writer {
        ranges: store.ranges()?,
        last_appended_at: store.last_appended_at()?,
        builders: (0..options.partitions).map(|_| BlobBuilder::default()).collect(),
        retention: TimeDelta::from_std(options.retention).unwrap_or(TimeDelta::MAX),
        retained_bytes_max: options.retained_bytes_max,
        sweep_interval: options.sweep_interval,
        next_sweep: Instant::now() + options.sweep_interval,
        clock: Arc::clone(&options.clock),
        store,
        shared,
    };
    let thread = std::thread::Builder::new().name("embedded-log".to_owned());
    thread.spawn(move || writer.run()).map_err(|source| LogError::Permanent {
        operation: "starting the writer of the embedded log",
        source: source.into(),
    })
}

struct Writer {
    store: Store,
    shared: Arc<Shared>,
    /// What is durable; the next record of a partition gets its high offset.
    ranges: Vec<Watermarks>,
    builders: Vec<BlobBuilder>,
    /// Append times never go back, whatever the clock does.
    last_appended_at: i64,
    retention: TimeDelta,
    retained_bytes_max: u64,
    sweep_interval: Duration,
    next_sweep: Instant,
    clock: Arc<dyn Clock>,
}

/// Tells everybody who waits when the writer ends, also when it panics.
struct Abandon(Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}

impl Writer {
    fn run(mut self) {
        let _abandon = Abandon(Arc::clone(&self.shared));
        while let Some(group) = self.shared.queue.next_group(self.wake_up_at()) {
            if group.is_empty() {
                self.idle();
            } else {
                self.write(group);
            }
            if self.next_sweep <= Instant::now() {
                self.sweep_on_schedule();
            }
        }
        if let Err(error) = self.store.close() {
            // Nothing is lost: the next opening reads the write-ahead log.
            tracing::warn!(%error, "the embedded log was not closed cleanly");
        }
    }

    fn wake_up_at(&self) -> Instant {
        match self.shared.trouble() {
            Some(_) => self.next_sweep.min(Instant::now() + PROBE_INTERVAL),
            None => self.next_sweep,
        }
    }

    /// Without publishes nothing else would find out that there is space again.
    fn idle(&self) {
        if self.shared.trouble().is_some() && self.store.probe().is_ok() {
            tracing::info!("the embedded log can be written again");
            self.shared.set_trouble(None);
        }
    }

    fn write(&mut self, group: Group) {
        let (sweeps, tasks): (Vec<_>, Vec<_>) =
            group.tasks.into_iter().partition(|task| matches!(task.request, Request::Sweep));
        if !tasks.is_empty() || !group.publishes.is_empty() {
            self.write_durably(group.publishes, tasks);
        }
        for task in sweeps {
            let outcome = self.sweep();
            // Whoever asked may have given up waiting.
            task.done.send(outcome.map(drop)).ok();
        }
    }

    fn write_durably(&mut self, publishes: Vec<Publish>, tasks: Vec<Task>) {
        let at = self.clock.now().timestamp_millis().max(self.last_appended_at);
        match self.transact(&publishes, &tasks, at) {
            Ok(ranges) => {
                self.last_appended_at = at;
                self.ranges = ranges;
                self.shared.publish_ranges(&self.ranges);
                // On a full log an offset is still written, which says nothing about appends.
                let appended = !publishes.is_empty();
                if appended {
                    self.shared.set_trouble(None);
                }
                self.answer(publishes, tasks, None);
                if !appended {
                    self.idle();
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = publishes.len(), "the embedded log could not be written");
                self.shared.set_trouble(Some(format!("the last write failed: {error}")));
                self.builders.fill_with(BlobBuilder::default);
                self.reload_ranges();
                if publishes.is_empty() {
                    self.answer(publishes, tasks, Some(&error));
                    return;
                }
                self.answer(publishes, Vec::new(), Some(&error));
                if !tasks.is_empty() {
                    self.write_durably(Vec::new(), tasks);
                }
            }
        }
    }

    /// Appends all publishes and does all tasks; returns the ranges once all of it is durable.
    fn transact(
        &mut self,
        publishes: &[Publish],
        tasks: &[Task],
        at: i64,
    ) -> rusqlite::Result<Vec<Watermarks>> {
        let mut ranges = self.ranges.clone();
        let room = if publishes.is_empty() { Room::WithReserve } else { Room::ForRecords };
        let transaction = self.store.begin(room)?;
        for publish in publishes {
            append(&transaction, &mut self.builders, &mut ranges, &publish.batch, at)?;
        }
        for (partition, builder) in (0..).zip(&mut self.builders) {
            if !builder.is_empty() {
                finish_blob(&transaction, partition, builder, &mut ranges, at)?;
            }
        }
        for task in tasks {
            match &task.request {
                Request::Commit { group, next } => {
                    store::commit_offsets(&transaction, group, next)?;
                }
                Request::RegisterGroup(group) => store::register_group(&transaction, group)?,
                Request::ForgetGroup(group) => store::forget_group(&transaction, group)?,
                Request::Sweep => {}
            }
        }
        if !publishes.is_empty() {
            reach(Point::RecordsWritten).map_err(injected)?;
        }
        transaction.commit()?;
        if !publishes.is_empty() {
            reach(Point::RecordsDurable).map_err(injected)?;
        }
        Ok(ranges)
    }

    /// After a failed commit the database says what is durable, not we.
    fn reload_ranges(&mut self) {
        match self.store.ranges() {
            Ok(ranges) => {
                self.ranges = ranges;
                self.shared.publish_ranges(&self.ranges);
            }
            Err(error) => tracing::error!(%error, "the embedded log could not be read"),
        }
    }

    fn answer(&self, publishes: Vec<Publish>, tasks: Vec<Task>, error: Option<&rusqlite::Error>) {
        let (batches, mut bytes) = (publishes.len(), 0);
        for Publish { batch, done } in publishes {
            bytes += batch.byte_len();
            let outcome = match error {
                None => Ok(()),
                Some(error) => Err(PublishError::Unconfirmed(error.to_string().into())),
            };
            // The request may have timed out; its records are as durable as said.
            done.send(outcome).ok();
        }
        for task in tasks {
            let outcome = match error {
                None => Ok(()),
                Some(error) => Err(LogError::Transient {
                    operation: "writing to the embedded log",
                    source: error.to_string().into(),
                }),
            };
            task.done.send(outcome).ok();
        }
        self.shared.queue.answered(batches, bytes);
    }

    fn sweep_on_schedule(&mut self) {
        let more = self.sweep().unwrap_or_else(|error| {
            tracing::error!(%error, "expired records of the embedded log could not be deleted");
            false
        });
        // A backlog goes in many bounded sweeps, between which records are appended.
        let pause = if more { self.sweep_interval / 100 } else { self.sweep_interval };
        self.next_sweep = Instant::now() + pause;
    }

    fn sweep(&mut self) -> Result<bool, LogError> {
        let before = self.clock.now().checked_sub_signed(self.retention);
        let expiry = Expiry {
            before: before.map_or(i64::MIN, |before| before.timestamp_millis()),
            regardless_of_age: self.store.used_bytes()? > self.retained_bytes_max,
        };
        let more = self.store.sweep(expiry)?;
        self.ranges = self.store.ranges()?;
        self.shared.publish_ranges(&self.ranges);
        Ok(more)
    }
}

fn injected(fault: InjectedFault) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(fault.into())
}

fn append(
    transaction: &Transaction<'_>,
    builders: &mut [BlobBuilder],
    ranges: &mut [Watermarks],
    batch: &RecordBatch,
    at: i64,
) -> rusqlite::Result<()> {
    for record in batch.iter() {
        let builder = &mut builders[usize::from(record.partition)];
        builder.push(record.key, record.value);
        if builder.is_full() {
            finish_blob(transaction, record.partition, builder, ranges, at)?;
        }
    }
    Ok(())
}

fn finish_blob(
    transaction: &Transaction<'_>,
    partition: crate::PartitionId,
    builder: &mut BlobBuilder,
    ranges: &mut [Watermarks],
    at: i64,
) -> rusqlite::Result<()> {
    let high: &mut Offset = &mut ranges[usize::from(partition)].high;
    let blob = builder.finish(partition, *high, at);
    store::insert_blob(transaction, &blob)?;
    *high = blob.end();
    Ok(())
}
