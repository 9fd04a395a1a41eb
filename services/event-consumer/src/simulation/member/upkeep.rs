//! Memory and the horizon, as in `pipeline/upkeep.rs`.

use super::super::coverage::Seen;
use super::super::sabotage::Sabotage;
use super::super::world::World;
use super::Member;
use crate::dedup::PartitionIndex;
use std::time::Duration;

impl Member {
    pub(super) fn observe(&mut self, world: &mut World) {
        if world.sabotage == Some(Sabotage::AutoCommit) {
            self.claimed = self.handed_out();
        }
        if world.now >= self.next_forget {
            self.next_forget = world.now + world.plan.forget_interval;
            if self.full { self.make_room(world) } else { self.forget(world) }
        }
    }

    fn forget(&mut self, world: &World) {
        let horizon = Duration::from_millis(world.plan.horizon);
        self.partitions.indexes_mut().for_each(|index| index.forget_beyond(horizon));
    }

    pub(super) fn make_room(&mut self, world: &mut World) {
        let before = self.partitions.ids();
        self.forget(world);
        self.partitions.indexes_mut().for_each(PartitionIndex::sweep);
        self.too_large.take_if(|rebuild| !rebuild.is_held(&self.partitions));
        let room = self.room();
        if let Some(rebuild) = &mut self.too_large
            && rebuild.try_again(room)
        {
            self.waiting.extend(rebuild.held(&self.partitions));
        }
        let above = self.partitions.index_bytes() > self.bytes_max;
        self.full = above || self.too_large.is_some();
        let (slot, ids) = (self.slot, self.partitions.ids());
        world.line(format_args!("{slot} makes room: {before} ids, then {ids}"));
        if self.full {
            world.coverage.note(Seen::MemoryFull);
        }
        if ids < before {
            world.coverage.note(Seen::MemoryFreed);
        }
    }

    /// Bytes that the indexes may still take.
    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.partitions.index_bytes())
    }
}
