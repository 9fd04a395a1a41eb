//! One partition that is ours: what was fetched of it, and what each record becomes. Pure.

use crate::batch::{Batch, Outcome, Tenure};
use crate::conflict::Conflict;
use crate::dead_letter::park;
use crate::decode::{Decoded, NoRow, Source, decode};
use crate::dedup::{Copy, PartitionIndex, Verdict};
use chrono::{DateTime, Utc};
use event_log::{FetchedRecord, FetchedRecords, Offset, PartitionId};
use fault_injection::{Sabotage, sabotaged, seen_before};
use std::collections::VecDeque;
use std::time::Instant;
use usage_store::Position;

/// The first copy of an event stands behind a later one, or says something else than before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record at offset {offset} of partition {partition} holds an event whose first copy is stored from offset {known_offset} of epoch {known_epoch}: \
     the log is not the one it was; if the topic was created anew, raise its epoch, else restore it"
)]
pub struct LogRewritten {
    pub partition: PartitionId,
    pub offset: Offset,
    pub known_epoch: u16,
    pub known_offset: Offset,
}

/// Why nothing more of a partition can be decided. Going on would lose or double usage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(transparent)]
    LogRewritten(#[from] LogRewritten),
    #[error(
        "the record at offset {offset} of partition {partition} is of topic epoch {epoch}, and this consumer is configured for an earlier one; \
         set --topic-epoch to {epoch} if the topic was replaced, or correct the producer"
    )]
    LaterEpoch { partition: PartitionId, offset: Offset, epoch: u16 },
}

/// What the decisions of one round share.
#[derive(Debug)]
pub struct Round<'a> {
    pub source: &'a Source,
    /// The time now at the earliest, for dead letters and for how old the log is.
    pub at: DateTime<Utc>,
    /// The time now at the latest: since when an event is remembered.
    pub at_latest: DateTime<Utc>,
    pub now: Instant,
    /// A buffer for identity keys.
    pub key: &'a mut Vec<u8>,
}

/// An owned partition.
#[derive(Debug)]
pub struct Partition {
    tenure: Tenure,
    /// The first offset that was not decided yet.
    next: Offset,
    /// `None` until it has been rebuilt; nothing is decided before.
    index: Option<PartitionIndex>,
    backlog: VecDeque<FetchedRecords>,
    /// Records of the first backlog entry that were decided.
    decided: usize,
}

impl Partition {
    pub fn new(tenure: Tenure, next: Offset, index: Option<PartitionIndex>) -> Self {
        Self { tenure, next, index, backlog: VecDeque::new(), decided: 0 }
    }

    pub fn tenure(&self) -> Tenure {
        self.tenure
    }

    /// The first offset that was not decided yet.
    pub fn next(&self) -> Offset {
        self.next
    }

    pub fn index(&self) -> Option<&PartitionIndex> {
        self.index.as_ref()
    }

    pub fn index_mut(&mut self) -> Option<&mut PartitionIndex> {
        self.index.as_mut()
    }

    pub fn set_index(&mut self, index: PartitionIndex) {
        self.index = Some(index);
    }

    /// The index and the offset it is complete up to.
    pub fn into_index(self) -> Option<(PartitionIndex, Offset)> {
        self.index.map(|index| (index, self.next))
    }

    /// Keeps records until they are decided.
    pub fn receive(&mut self, records: FetchedRecords) {
        if !records.is_empty() {
            self.backlog.push_back(records);
        }
    }

    /// Whether there are records to decide now.
    pub fn has_work(&self) -> bool {
        self.index.is_some() && !self.backlog.is_empty()
    }

    /// Bytes of the records that wait.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.iter().map(FetchedRecords::byte_len).sum()
    }

    /// Decides records in their order until none is left or `batch` is full.
    pub fn decide_backlog(&mut self, batch: &mut Batch, round: &mut Round<'_>) -> Result<(), Halt> {
        let Some(index) = &mut self.index else { return Ok(()) };
        while let Some(records) = self.backlog.front() {
            for record in records.iter().skip(self.decided) {
                if batch.is_full() {
                    return Ok(());
                }
                self.decided += 1;
                // The log hands out each record once; one that came twice is not another event.
                if record.offset >= self.next {
                    let position = Position {
                        epoch: round.source.epoch,
                        partition: self.tenure.partition,
                        offset: record.offset,
                    };
                    let outcome = decide(index, position, &record, round)?;
                    if !is_skipped(&outcome) {
                        batch.add(self.tenure, self.next, position, outcome, round.now);
                    }
                    self.next = record.offset + 1;
                }
            }
            self.backlog.pop_front();
            self.decided = 0;
        }
        Ok(())
    }
}

fn is_skipped(outcome: &Outcome<'_>) -> bool {
    sabotaged(Sabotage::SkipPoison) && matches!(outcome, Outcome::DeadLetter(_))
}

/// Products that leave it to ClickHouse to compare the copies of an event.
fn has_no_index() -> bool {
    [Sabotage::LastWriteWins, Sabotage::FilterBeforeFinal, Sabotage::FinalPerPartition]
        .into_iter()
        .any(sabotaged)
}

fn decide<'a>(
    index: &mut PartitionIndex,
    position: Position,
    record: &FetchedRecord<'a>,
    round: &mut Round<'_>,
) -> Result<Outcome<'a>, Halt> {
    let decoded = match decode(round.source, position.partition, record, round.key) {
        Ok(decoded) => decoded,
        Err(NoRow::LaterEpoch(epoch)) => {
            return Err(Halt::LaterEpoch {
                partition: position.partition,
                offset: record.offset,
                epoch,
            });
        }
        Err(NoRow::Refused(refused)) => {
            return Ok(Outcome::DeadLetter(park(
                round.source,
                position,
                record,
                refused,
                round.at,
            )));
        }
    };
    let Decoded { event, identity, fingerprint } = &decoded;
    // An event "from the future" is as old as its record: it must not stay for ever.
    let accepted_at = event.accepted_at.min(round.at);
    let copy = Copy {
        hash: *identity,
        place: index.order().current(record.offset),
        fingerprint: *fingerprint,
        accepted_at,
        decided_at: round.at_latest,
    };
    if sabotaged(Sabotage::SeenBeforeDurable) && seen_before(&identity.0) {
        return Ok(Outcome::Duplicate);
    }
    match index.decide(&copy) {
        Verdict::First | Verdict::Replay => Ok(Outcome::Stored(decoded)),
        Verdict::Duplicate | Verdict::Conflict { .. } if has_no_index() => {
            Ok(Outcome::Stored(decoded))
        }
        Verdict::Duplicate => Ok(Outcome::Duplicate),
        Verdict::Conflict { first, first_fingerprint } => {
            let (first_epoch, first_offset) = index.order().position(first);
            let value = record.value.into();
            Ok(Outcome::Conflict(Conflict {
                position,
                value,
                fingerprint: *fingerprint,
                first_epoch,
                first_offset,
                first_fingerprint,
            }))
        }
        Verdict::Impossible { known } => {
            let (known_epoch, known_offset) = index.order().position(known);
            Err(Halt::LogRewritten(LogRewritten {
                partition: position.partition,
                offset: record.offset,
                known_epoch,
                known_offset,
            }))
        }
    }
}

#[cfg(test)]
mod tests;
