//! Partitions come and go, as in `pipeline/membership.rs`.

use super::super::coverage::Seen;
use super::super::plan::Fault;
use super::super::sabotage::Sabotage;
use super::super::world::{World, instant};
use super::rebuilding::{Outcome, Rebuilt};
use super::{End, Member, Reason};
use crate::batch::Tenure;
use crate::fit::check_fit;
use crate::too_large::TooLarge;
use event_log::{Assignment, PartitionId};

impl Member {
    pub(super) fn assigned(&mut self, world: &mut World, assignments: &[Assignment]) {
        let again: Vec<_> = assignments
            .iter()
            .map(|a| a.partition)
            .filter(|p| self.partitions.get_mut(*p).is_some())
            .collect();
        self.revoked(world, &again);
        let to_rebuild = self.partitions.assign(assignments);
        for Assignment { partition, start } in assignments {
            self.pauses.forget(*partition);
            world.coverage.note(Seen::Assigned);
            let slot = self.slot;
            world.line(format_args!("{slot} is assigned {partition} from {start}"));
        }
        if assignments.len() > to_rebuild.len() {
            world.coverage.note(Seen::IndexRetained);
        }
        if world.sabotage == Some(Sabotage::NoRebuild) {
            for tenure in to_rebuild {
                let partition = self.partitions.get_mut(tenure.partition).expect("just assigned");
                partition.set_index(crate::dedup::PartitionIndex::new(self.order));
            }
            return;
        }
        self.waiting.extend(to_rebuild);
    }

    pub(super) fn revoked(&mut self, world: &mut World, partitions: &[PartitionId]) {
        if partitions.is_empty() {
            return;
        }
        let slot = self.slot;
        world.line(format_args!("{slot} loses {partitions:?}"));
        world.coverage.note(Seen::Revoked);
        if !self.batch.is_empty() {
            world.coverage.note(Seen::RevokedWithBatch);
        }
        if self.is_inserting() {
            world.coverage.note(Seen::RevokedDuringInsert);
        }
        let keeps = [Some(Sabotage::KeepBuffer), Some(Sabotage::KeepBufferAndCommit)];
        if keeps.contains(&world.sabotage) && !self.batch.is_empty() {
            self.kept.push_back(self.batch.seal(&self.source, instant(world.clock())));
        }
        self.partitions.revoke(partitions);
        for partition in partitions {
            self.batch.abandon(*partition);
            self.pauses.forget(*partition);
        }
        self.abandon_unless_held(world);
        self.abandon_rebuild_unless_held(world);
        if self.too_large.as_ref().is_some_and(|rebuild| !rebuild.is_held(&self.partitions)) {
            self.make_room(world);
        }
    }

    /// Takes the outcome of a rebuild, as far as its partitions are still ours.
    pub(super) fn take_rebuilt(
        &mut self,
        world: &mut World,
        mut tenures: Vec<Tenure>,
        outcome: Outcome,
    ) {
        tenures.retain(|tenure| self.partitions.holds(*tenure));
        match outcome {
            Ok(mut rebuilt) => {
                let found = |tenure: Tenure| Some((tenure, rebuilt.remove(&tenure.partition)?));
                self.opening.extend(tenures.into_iter().filter_map(found));
            }
            Err(_) if tenures.is_empty() => {}
            Err(bytes_max) => {
                world.coverage.note(Seen::IndexTooLarge);
                self.too_large = Some(TooLarge::new(tenures, bytes_max));
                self.make_room(world);
            }
        }
    }

    /// Opens partitions for decisions, unless their log is not the one the store was filled from.
    pub(super) fn open_rebuilt(&mut self, world: &mut World) -> Result<(), End> {
        while let Some((tenure, rebuilt)) = self.opening.pop() {
            if world.happens(Fault::WatermarksFailed) {
                world.coverage.note(Seen::WatermarksFailed);
                self.opening.push((tenure, rebuilt));
                return self.take_one_report(world);
            }
            let Rebuilt { index, highest_stored } = rebuilt;
            if !self.partitions.holds(tenure) {
                continue;
            }
            let high = world.log.partition(tenure.partition).next;
            let Some(partition) = self.partitions.get_mut(tenure.partition) else { continue };
            if world.sabotage != Some(Sabotage::NoFitCheck) {
                check_fit(tenure.partition, partition.next(), high, highest_stored)
                    .map_err(|misfit| End::Halt(Reason::of(&misfit)))?;
            }
            let (slot, ids) = (self.slot, index.len());
            world.line(format_args!("{slot} has rebuilt {} with {ids} ids", tenure.partition));
            world.coverage.note(if ids == 0 { Seen::RebuildEmpty } else { Seen::RebuildOfRows });
            partition.set_index(index);
            if self.too_large.take_if(|rebuild| rebuild.is_of(tenure)).is_some() {
                self.make_room(world);
            }
        }
        Ok(())
    }
}
