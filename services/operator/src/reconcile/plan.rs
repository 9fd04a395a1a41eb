//! Which part of each partition belongs to a period, and whether the period is settled.

use super::findings::{Check, Findings};
use super::{NotChecked, Request};
use crate::engines::Engines;
use chrono::{DateTime, TimeDelta, Utc};
use event_log::{EventLogReader, LogError, Offset, Watermarks};
use std::ops::Range;
use usage_store::Position;

/// The part of a partition that a period concerns.
#[derive(Clone, Debug)]
pub struct Plan {
    pub partition: u16,
    /// What the log holds.
    pub log: Range<Offset>,
    /// What the consumer has to read next.
    pub committed: Option<Offset>,
    /// Appended within the period, or shortly before or after it.
    pub offsets: Range<Offset>,
    /// Appended within the period.
    pub appended: Range<Offset>,
}

/// Acceptance of the events whose rows are read: of twice `settle` more, so that every record of a plan's
/// offsets that has no row is known to be missing.
pub fn window(request: &Request) -> Range<DateTime<Utc>> {
    let settle = TimeDelta::from_std(request.settle).unwrap_or(TimeDelta::zero());
    request.period.start - settle * 2..request.period.end + settle * 2
}

impl Plan {
    /// Whether records of the period may have been deleted by retention.
    pub fn log_may_be_gone(&self) -> bool {
        self.log.start > 0 && self.offsets.start == self.log.start
    }

    pub fn check_offsets(&self, epoch: u16, findings: &mut Findings) {
        if let Some(committed) = self.committed.filter(|committed| *committed > self.log.end) {
            let position = Position { epoch, partition: self.partition, offset: committed };
            let detail = format!(
                "the log ends before offset {}, and {committed} is the next to read",
                self.log.end
            );
            findings.add(Check::OffsetsWithinLog, position, detail);
        }
    }
}

/// Plans every partition of the topic.
pub fn plan(
    engines: &mut Engines,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Vec<Plan>, NotChecked> {
    let settle = TimeDelta::from_std(request.settle)
        .map_err(|_| NotChecked::Configuration("--settle is too long".to_owned()))?;
    let Range { start: from, end: to } = request.period;
    if from >= to {
        return Err(NotChecked::Configuration(format!(
            "the period is empty: --from {} must be before --to {}",
            from.to_rfc3339(),
            to.to_rfc3339()
        )));
    }
    if to + settle > now {
        return Err(NotChecked::NotSettled(format!(
            "it ends at {}, and events accepted until {} may still be on their way; wait, or take an earlier --to",
            to.to_rfc3339(),
            (now - settle).to_rfc3339()
        )));
    }
    let reader = engines.reader.as_mut();
    if reader.partition_count() != engines.source.partition_count {
        return Err(NotChecked::Configuration(format!(
            "the topic has {} partitions, not {}",
            reader.partition_count(),
            engines.source.partition_count
        )));
    }
    let times = Times { from, to, settle };
    tokio::task::block_in_place(|| {
        (0..engines.source.partition_count)
            .map(|partition| plan_partition(reader, partition, &times))
            .collect()
    })
}

struct Times {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    settle: TimeDelta,
}

fn plan_partition(
    reader: &mut dyn EventLogReader,
    partition: u16,
    times: &Times,
) -> Result<Plan, NotChecked> {
    let Times { from, to, settle } = *times;
    let Watermarks { low, high } = reader.watermarks(partition)?;
    let mut at = |at: DateTime<Utc>| -> Result<Offset, LogError> {
        Ok(reader.offset_for_time(partition, at)?.clamp(low, high))
    };
    let offsets = at(from - settle)?..at(to + settle)?;
    let appended = at(from)?..at(to)?;
    let committed = reader.committed(partition)?;
    if committed.unwrap_or(low) < offsets.end {
        return Err(NotChecked::NotSettled(format!(
            "the consumer is behind: partition {partition} is stored up to offset {}, and the period ends at {}; wait for it, or take an earlier --to",
            committed.unwrap_or(low),
            offsets.end
        )));
    }
    Ok(Plan { partition, log: low..high, committed, offsets, appended })
}
