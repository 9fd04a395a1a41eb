//! What is looked after between records: memory, lag, liveness.

use super::Pipeline;
use crate::dedup::PartitionIndex;
use crate::error::ConsumerError;
use crate::metrics;
use crate::partition::Partition;
use std::time::{Duration, Instant};

/// How often one partition's end is asked for, in turn.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// How often ids that are older than the horizon are let go.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

impl Pipeline {
    /// Looks after lag, memory and liveness.
    pub(super) fn observe(&mut self) -> Result<(), ConsumerError> {
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
        let horizon = self.parts.config.horizon;
        self.partitions.indexes_mut().for_each(|index| index.forget_beyond(horizon));
    }

    /// Frees what is older than the horizon; when that is not enough, nothing is decided any more.
    pub(super) fn make_room(&mut self) {
        self.forget();
        self.partitions.indexes_mut().for_each(PartitionIndex::sweep);
        self.too_large.take_if(|rebuild| !rebuild.is_held(&self.partitions));
        let room = self.room();
        if let Some(rebuild) = &mut self.too_large
            && rebuild.try_again(room)
        {
            self.rebuilding.add(rebuild.held(&self.partitions));
        }
        let above = self.partitions.index_bytes() > self.parts.config.index_bytes_max;
        self.set_full(above || self.too_large.is_some());
    }

    /// Bytes that the indexes may still take.
    pub(super) fn room(&self) -> usize {
        self.parts.config.index_bytes_max.saturating_sub(self.partitions.index_bytes())
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
}
