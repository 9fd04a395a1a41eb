//! Partitions come and go: what they bring and what they take along.

use super::{LOG_RETRY, Pipeline};
use crate::batch::Tenure;
use crate::dedup::rebuild::{IndexTooLarge, Rebuilt};
use crate::error::ConsumerError;
use crate::fit::check_fit;
use crate::metrics;
use crate::too_large::TooLarge;
use chrono::{DateTime, TimeDelta, Utc};
use event_log::{Assignment, FetchedRecords, Offset, PartitionId};
use fault_injection::{Point, Sabotage, reach, sabotaged};
use std::collections::BTreeMap;
use std::time::Instant;

/// How far the clocks of this process and of the store may be apart before it is said.
const CLOCKS_APART_MAX: TimeDelta = TimeDelta::minutes(1);

/// Products that would not notice that the log and the store do not fit together.
const NO_FIT_CHECK: [Sabotage; 7] = [
    Sabotage::CommitBeforeInsert,
    Sabotage::CommitPastFailure,
    Sabotage::AutoCommit,
    Sabotage::RecordTimeIsEventTime,
    Sabotage::OffsetResetLatest,
    Sabotage::DropAfterFailedInsert,
    Sabotage::RefusalIsRejection,
];

impl Pipeline {
    pub(super) fn assigned(&mut self, assignments: &[Assignment]) -> Result<(), ConsumerError> {
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
    pub(super) fn revoked(&mut self, partitions: &[PartitionId]) {
        if partitions.is_empty() {
            return;
        }
        let keep = sabotaged(Sabotage::KeepAfterRevoke);
        if keep && !self.inserting.is_busy() && !self.batch.is_empty() {
            self.send(Instant::now());
        }
        self.partitions.revoke(partitions);
        for partition in partitions {
            self.batch.abandon(*partition);
            self.pauses.forget(*partition);
            self.ends.remove(partition);
            metrics::forget_lag(*partition);
        }
        if !keep {
            self.inserting.abandon_unless_held(&self.partitions);
        }
        self.rebuilding.abandon_unless_held(&self.partitions);
        self.opening.retain(|(tenure, _)| self.partitions.holds(*tenure));
        if self.too_large.as_ref().is_some_and(|rebuild| !rebuild.is_held(&self.partitions)) {
            self.make_room();
        }
        tracing::info!(partitions = partitions.len(), "partitions revoked");
    }

    pub(super) fn received(&mut self, fetched: Vec<FetchedRecords>) {
        for records in fetched {
            // The log hands out nothing of a partition that it has taken back.
            if let Some(partition) = self.partitions.get_mut(records.partition) {
                partition.receive(records);
            }
        }
    }

    /// Takes the outcome of a rebuild, as far as its partitions are still ours.
    pub(super) fn take_rebuilt(
        &mut self,
        mut tenures: Vec<Tenure>,
        outcome: Result<BTreeMap<PartitionId, Rebuilt>, IndexTooLarge>,
    ) {
        tenures.retain(|tenure| self.partitions.holds(*tenure));
        match outcome {
            Ok(mut rebuilt) => {
                let shown = rebuilt.values().map(|rebuilt| rebuilt.store_clock);
                if let Some(latest) = shown.max_by_key(|(_, steady)| *steady) {
                    self.store_showed(latest);
                }
                let found = |tenure: Tenure| Some((tenure, rebuilt.remove(&tenure.partition)?));
                self.opening.extend(tenures.into_iter().filter_map(found));
            }
            Err(_) if tenures.is_empty() => {}
            Err(IndexTooLarge { bytes_max }) => {
                self.too_large = Some(TooLarge::new(tenures, bytes_max));
                self.make_room();
            }
        }
    }

    /// Takes the store's clock for a bound of ours, before anything is decided with the rebuilt indexes.
    fn store_showed(&mut self, (store, steady): (DateTime<Utc>, Instant)) {
        let latest = self.time.latest(steady);
        if (latest - store).abs() > CLOCKS_APART_MAX {
            let (here, store) = (latest.to_rfc3339(), store.to_rfc3339());
            tracing::warn!(here, store, "the clocks of this process and of ClickHouse differ");
        }
        self.time.store_showed(store, steady);
    }

    /// Opens partitions for decisions, unless their log is not the one the store was filled from.
    pub(super) fn open_rebuilt(&mut self) -> Result<(), ConsumerError> {
        while let Some((tenure, rebuilt)) = self.opening.pop() {
            reach(Point::IndexRebuilt)?;
            let high = match self.parts.log.watermarks(tenure.partition) {
                Ok(range) => range.high,
                Err(error) => {
                    self.opening.push((tenure, rebuilt));
                    self.tolerate("reading the log's range", error)?;
                    return self.wait_for_report(LOG_RETRY);
                }
            };
            self.open(tenure, rebuilt, high)?;
        }
        Ok(())
    }

    fn open(
        &mut self,
        tenure: Tenure,
        rebuilt: Rebuilt,
        high: Offset,
    ) -> Result<(), ConsumerError> {
        let Rebuilt { index, highest_stored, store_clock: _ } = rebuilt;
        let ids = index.len();
        if !self.partitions.holds(tenure) {
            return Ok(());
        }
        let Some(partition) = self.partitions.get_mut(tenure.partition) else { return Ok(()) };
        if !NO_FIT_CHECK.into_iter().any(sabotaged) {
            check_fit(tenure.partition, partition.next(), high, highest_stored)?;
        }
        partition.set_index(index);
        if self.too_large.take_if(|rebuild| rebuild.is_of(tenure)).is_some() {
            self.make_room();
        }
        metrics::rebuilt();
        tracing::info!(partition = tenure.partition, ids, "dedup index rebuilt");
        self.ends.insert(tenure.partition, high);
        Ok(())
    }
}
