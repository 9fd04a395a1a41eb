//! Which partitions the log is asked not to hand out at present.

use event_log::{EventLogConsumer, LogError, PartitionId};
use std::collections::BTreeSet;

/// What the log was told.
#[derive(Debug, Default)]
pub struct Pauses {
    paused: BTreeSet<PartitionId>,
}

impl Pauses {
    /// Tells the log the difference between what it was told and `wanted`.
    pub fn apply(
        &mut self,
        log: &mut dyn EventLogConsumer,
        wanted: BTreeSet<PartitionId>,
    ) -> Result<(), LogError> {
        let pause: Vec<_> = wanted.difference(&self.paused).copied().collect();
        if !pause.is_empty() {
            log.pause(&pause)?;
            self.paused.extend(pause);
        }
        let resume: Vec<_> = self.paused.difference(&wanted).copied().collect();
        if !resume.is_empty() {
            log.resume(&resume)?;
            self.paused = wanted;
        }
        Ok(())
    }

    /// A partition that was assigned or revoked is no longer paused.
    pub fn forget(&mut self, partition: PartitionId) {
        self.paused.remove(&partition);
    }

    pub fn contains(&self, partition: PartitionId) -> bool {
        self.paused.contains(&partition)
    }
}
