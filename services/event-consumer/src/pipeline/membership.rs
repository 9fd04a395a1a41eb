//! Partitions come and go: what they bring and what they take along.

use super::{LOG_RETRY, Pipeline};
use crate::batch::Tenure;
use crate::dedup::rebuild::Rebuilt;
use crate::error::ConsumerError;
use crate::metrics;
use event_log::{Assignment, FetchedRecords, PartitionId};

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

    pub(super) fn received(&mut self, fetched: Vec<FetchedRecords>) {
        for records in fetched {
            // The log hands out nothing of a partition that it has taken back.
            if let Some(partition) = self.partitions.get_mut(records.partition) {
                partition.receive(records);
            }
        }
    }

    /// Opens a partition for decisions, unless its log is not the one the store was filled from.
    pub(super) fn rebuilt(
        &mut self,
        tenure: Tenure,
        rebuilt: Rebuilt,
    ) -> Result<(), ConsumerError> {
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
}
