//! The member's end of the log: what the Kafka client knows by itself.

use super::super::group::Announcement;
use super::super::plan::Fault;
use super::super::sabotage::Sabotage;
use super::super::world::World;
use super::{End, Member, Reason};
use crate::simulation::coverage::Seen;
use chrono::{DateTime, Utc};
use event_log::{Assignment, EventLogConsumer, LogError, Offset, PartitionId, Polled, Watermarks};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: Offset,
    paused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    cursors: BTreeMap<PartitionId, Cursor>,
}

impl Link {
    pub(super) fn may_commit(
        &self,
        world: &World,
        process: (usize, u64),
        next: &[(PartitionId, Offset)],
    ) -> bool {
        let handed_out =
            |(p, next): &(_, _)| self.cursors.get(p).is_some_and(|cursor| *next <= cursor.next);
        next.iter().all(handed_out) && world.group.may_commit(process, next)
    }

    fn set_paused(&mut self, partitions: &[PartitionId], paused: bool) -> Result<(), LogError> {
        if !partitions.iter().all(|partition| self.cursors.contains_key(partition)) {
            return Err(LogError::Fenced);
        }
        for partition in partitions {
            self.cursors.entry(*partition).and_modify(|cursor| cursor.paused = paused);
        }
        Ok(())
    }

    fn revoke(&mut self, lost: Option<Vec<PartitionId>>) -> Polled {
        let lost = lost.unwrap_or_else(|| self.cursors.keys().copied().collect());
        let revoked: Vec<_> =
            lost.into_iter().filter(|p| self.cursors.remove(p).is_some()).collect();
        if revoked.is_empty() { Polled::Idle } else { Polled::Revoked(revoked) }
    }
}

impl Member {
    pub(super) fn poll_link(&mut self, world: &mut World) -> Result<Polled, End> {
        let (slot, incarnation) = (self.slot, self.incarnation);
        if !world.group.is_member(slot, incarnation) {
            world.group.join(slot, incarnation, false, &mut world.prng);
            return Ok(self.link.revoke(None));
        }
        match world.group.next(slot) {
            Some(Announcement::Assign(partitions)) => self.take_assignment(world, &partitions),
            Some(Announcement::Revoke(lost)) => {
                world.group.taken(slot);
                Ok(self.link.revoke(lost))
            }
            None => self.fetch(world),
        }
    }

    fn take_assignment(
        &mut self,
        world: &mut World,
        partitions: &[PartitionId],
    ) -> Result<Polled, End> {
        if world.happens(Fault::WatermarksFailed) {
            world.coverage.note(Seen::WatermarksFailed);
            return Ok(Polled::Idle);
        }
        let mut assignments = Vec::new();
        for partition in partitions {
            let log = world.log.partition(*partition);
            let start = match world.group.committed(*partition) {
                None => log.low,
                Some(committed) if committed < log.low => {
                    return Err(End::Halt(Reason::LogGap(*partition)));
                }
                Some(committed) if committed > log.next => {
                    return Err(End::Halt(Reason::LogCut(*partition)));
                }
                Some(committed) => committed,
            };
            assignments.push(Assignment { partition: *partition, start });
        }
        world.group.taken(self.slot);
        for Assignment { partition, start } in &assignments {
            self.link.cursors.insert(*partition, Cursor { next: *start, paused: false });
        }
        Ok(Polled::Assigned(assignments))
    }

    fn fetch(&mut self, world: &mut World) -> Result<Polled, End> {
        let mut fetched = Vec::new();
        for (partition, cursor) in &mut self.link.cursors {
            let log = world.log.partition(*partition);
            if cursor.next > log.next {
                return Err(End::Halt(Reason::LogCut(*partition)));
            }
            if cursor.next < log.low {
                return Err(End::Halt(Reason::LogGap(*partition)));
            }
            let dropped = cursor.paused && world.sabotage == Some(Sabotage::DropWhilePaused);
            if cursor.paused && !dropped {
                continue;
            }
            let limit = world.prng.between(0, world.plan.poll_records);
            let limit = usize::try_from(limit).expect("a few records");
            let records = world.log.fetch(*partition, cursor.next, limit);
            if let Some(last) = records.last_offset() {
                cursor.next = last + 1;
                if !dropped {
                    fetched.push(records);
                }
            }
        }
        Ok(if fetched.is_empty() { Polled::Idle } else { Polled::Records(fetched) })
    }
}

/// What `Pauses` needs of a log. The driver asks for the rest in its own way.
impl EventLogConsumer for Link {
    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        self.set_paused(partitions, false)
    }

    fn poll(&mut self, _: Duration) -> Result<Polled, LogError> {
        unreachable!("the driver polls")
    }

    fn commit(&mut self, _: &[(PartitionId, Offset)]) -> Result<(), LogError> {
        unreachable!("the driver commits")
    }

    fn committed(&mut self, _: PartitionId) -> Result<Option<Offset>, LogError> {
        unreachable!("the driver asks the group")
    }

    fn watermarks(&mut self, _: PartitionId) -> Result<Watermarks, LogError> {
        unreachable!("the driver asks the log")
    }

    fn offset_for_time(&mut self, _: PartitionId, _: DateTime<Utc>) -> Result<Offset, LogError> {
        unreachable!("nobody asks")
    }
}

impl Member {
    /// For a sabotage: everything that was handed out.
    pub(super) fn handed_out(&self) -> BTreeMap<PartitionId, Offset> {
        self.link.cursors.iter().map(|(partition, cursor)| (*partition, cursor.next)).collect()
    }
}
