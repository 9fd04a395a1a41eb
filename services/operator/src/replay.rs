//! Stores a part of the log again: the same decisions, the same bytes, so that what is there stays as it is.

pub mod first_copies;
pub mod range;
pub mod segments;

use crate::engines::Engines;
use chrono::{DateTime, Utc};
use event_consumer::batch::{Batch, BatchLimits, Outcome, SealedBatch, Tally, Tenure};
use event_consumer::conflict::Conflict;
use event_consumer::dead_letter::park;
use event_consumer::decode::{Decoded, NoRow, Source, decode};
use event_consumer::insert::insert;
use event_consumer::partition::Halt;
use event_log::{EventLogReader, FetchedRecord, LogError, Offset, PartitionId, Watermarks};
use first_copies::{Copy, Decision, FirstCopies, LateCopies};
use metering::IdentityHash;
use range::{ReplayEnd, ReplayStart};
use segments::{Comparison, Counts, Segment, segments, widened};
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use usage_store::conservation::{AuditRange, FirstCopy, LogRange};
use usage_store::{Position, StoreError, UsageStore};

/// What to replay.
#[derive(Clone, Debug)]
pub struct Request {
    pub from: ReplayStart,
    /// Where the consumer has got to when `None`; never beyond that.
    pub to: Option<ReplayEnd>,
    pub dry_run: bool,
    /// How long event ids are remembered by the consumer.
    pub horizon: Duration,
    /// Most memory for the remembered ids of one partition, in bytes.
    pub memory: usize,
}

/// Why it ended before its end. What was stored until then is right, and starting again is safe.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    Range(String),
    #[error(
        "offsets {first} to {last} of partition {partition}: the audit says that {audit} events of them were stored, and by what the log and the store still hold it would be at least {found}; \
         an earlier copy of some is in neither, so they would be billed twice. Nothing of this range was stored. Restore the older events of the store first, then replay again"
    )]
    StoresMore { partition: PartitionId, first: Offset, last: Offset, audit: u64, found: u64 },
    #[error(
        "partition {partition} needs more than {allowed} bytes for the ids before and in the range; raise --memory"
    )]
    TooMuch { partition: PartitionId, allowed: usize },
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

/// What was done in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub partition: PartitionId,
    pub offsets: Range<Offset>,
    pub tally: Tally,
    /// Events that the audit has as stored and that are taken for repeats here: their ids were used
    /// again after the dedup horizon. They are not restored.
    pub not_restored: u64,
}

/// Replays the partitions one after the other.
pub async fn replay(
    engines: &mut Engines,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Vec<Replayed>, ReplayError> {
    engines.store.check().await?;
    let ranges = block_in_place(|| ranges(engines.reader.as_mut(), request))?;
    let mut replayed = Vec::with_capacity(ranges.len());
    for (partition, part) in ranges {
        let (offsets, audit) = whole(engines, partition, part, now).await?;
        let first_copies = history(engines, request, partition, &offsets).await?;
        let tenure = Tenure { partition, generation: 1 };
        let mut work = Work {
            source: &engines.source,
            store: engines.store.restoring(),
            request,
            tenure,
            first_copies,
            at: now,
            key: Vec::with_capacity(256),
        };
        let mut total = Replayed {
            partition,
            offsets: offsets.clone(),
            tally: Tally::default(),
            not_restored: 0,
        };
        for segment in segments(offsets, &audit) {
            work.segment(engines.reader.as_mut(), &segment, &mut total).await?;
        }
        replayed.push(total);
    }
    Ok(replayed)
}

/// What was asked for of a partition.
struct Part {
    offsets: Range<Offset>,
    /// What the log has and the consumer has decided.
    bounds: Range<Offset>,
}

/// The part with the rest of the audit's ranges that it cuts, and what the audit says of them.
async fn whole(
    engines: &Engines,
    partition: PartitionId,
    part: Part,
    now: DateTime<Utc>,
) -> Result<(Range<Offset>, Vec<AuditRange>), ReplayError> {
    let Part { mut offsets, bounds } = part;
    let ever = DateTime::UNIX_EPOCH..now + chrono::TimeDelta::days(3650);
    let Engines { store, source, .. } = engines;
    loop {
        let range = LogRange { epoch: source.epoch, partition, offsets: offsets.clone() };
        let audit = store.audit_ranges(&source.topic, &range, ever.clone()).await?;
        let wide = widened(&offsets, &audit, &bounds);
        if offsets.is_empty() || wide == offsets {
            return Ok((offsets, audit));
        }
        offsets = wide;
    }
}

/// The offsets of each partition that is concerned.
fn ranges(
    reader: &mut dyn EventLogReader,
    request: &Request,
) -> Result<Vec<(PartitionId, Part)>, ReplayError> {
    let partitions = match request.from {
        ReplayStart::At { partition, .. } if partition >= reader.partition_count() => {
            return Err(ReplayError::Range(format!(
                "there is no partition {partition}; the log has {}",
                reader.partition_count()
            )));
        }
        ReplayStart::At { partition, .. } => partition..partition + 1,
        ReplayStart::Earliest | ReplayStart::Time(_) => 0..reader.partition_count(),
    };
    if let (Some(ReplayEnd::Offset(_)), ReplayStart::Earliest | ReplayStart::Time(_)) =
        (request.to, request.from)
    {
        let text = "--to is an offset, so --from has to say of which partition: partition:offset";
        return Err(ReplayError::Range(text.to_owned()));
    }
    partitions.map(|partition| Ok((partition, range_of(reader, request, partition)?))).collect()
}

fn range_of(
    reader: &mut dyn EventLogReader,
    request: &Request,
    partition: PartitionId,
) -> Result<Part, ReplayError> {
    let Watermarks { low, high } = reader.watermarks(partition)?;
    let start = match request.from {
        ReplayStart::Earliest => low,
        ReplayStart::Time(at) => reader.offset_for_time(partition, at)?.clamp(low, high),
        ReplayStart::At { offset, .. } if offset < low => {
            return Err(ReplayError::Range(format!(
                "partition {partition} of the log begins at offset {low}: what is before it was deleted by retention; start there, or at earliest"
            )));
        }
        ReplayStart::At { offset, .. } => offset,
    };
    // What the consumer has not decided yet is for it to decide.
    let decided = reader.committed(partition)?.unwrap_or(low).min(high);
    let end = match request.to {
        None => decided,
        Some(ReplayEnd::Offset(offset)) => offset.min(decided),
        Some(ReplayEnd::Time(at)) => reader.offset_for_time(partition, at)?.min(decided),
    };
    Ok(Part { offsets: start..end.max(start), bounds: low..decided })
}

/// The first copies before the range: of the store, over all its time, and of the log before the range,
/// because the store may have lost some.
async fn history(
    engines: &mut Engines,
    request: &Request,
    partition: PartitionId,
    offsets: &Range<Offset>,
) -> Result<FirstCopies, ReplayError> {
    let Engines { reader, store, source } = engines;
    let (mut copies, mut within) = (FirstCopies::new(request.horizon), true);
    let too_much = || ReplayError::TooMuch { partition, allowed: request.memory };
    let row = |row: FirstCopy| {
        let FirstCopy { epoch, offset, hash, fingerprint, accepted_at } = row;
        within &= copies.bytes() <= request.memory;
        if within {
            let (identity, place) = (IdentityHash(hash), (epoch, offset));
            copies.remember_stored(&Copy { identity, place, fingerprint, accepted_at });
        }
    };
    store.first_copies(source.epoch, partition, offsets.start, None, row).await?;
    if !within {
        return Err(too_much());
    }
    let mut next = reader.watermarks(partition)?.low;
    let mut key = Vec::with_capacity(256);
    while next < offsets.start && !offsets.is_empty() {
        let scanned = block_in_place(|| reader.read(partition, next, offsets.start))?;
        for record in scanned.records.iter() {
            match decode(source, partition, &record, &mut key) {
                Ok(decoded) => {
                    let place = (source.epoch, record.offset);
                    copies.remember_record(&copy_of(&decoded, place));
                }
                Err(NoRow::Refused(_)) => {}
                Err(NoRow::LaterEpoch(epoch)) => {
                    return Err(Halt::LaterEpoch { partition, offset: record.offset, epoch }.into());
                }
            }
        }
        if copies.bytes() > request.memory {
            return Err(too_much());
        }
        next = scanned.next;
    }
    Ok(copies)
}

fn copy_of(decoded: &Decoded<'_>, place: first_copies::Place) -> Copy {
    let Decoded { event, identity, fingerprint } = decoded;
    Copy { identity: *identity, place, fingerprint: *fingerprint, accepted_at: event.accepted_at }
}

/// What the records of a segment became. Of a segment without an audit it is stored already.
struct Decided {
    held: Vec<SealedBatch>,
    counts: Counts,
}

/// One partition that is being replayed.
struct Work<'a> {
    source: &'a Source,
    /// Its inserts are never taken for retries of others: what those stored may be deleted since.
    store: UsageStore,
    request: &'a Request,
    tenure: Tenure,
    first_copies: FirstCopies,
    at: DateTime<Utc>,
    key: Vec<u8>,
}

impl Work<'_> {
    /// Decides the records of a segment, and stores them once they are known to agree with the audit.
    /// Memory: no more events than the audit has of the segment, and the batch in which there are more.
    async fn segment(
        &mut self,
        reader: &mut dyn EventLogReader,
        segment: &Segment,
        total: &mut Replayed,
    ) -> Result<(), ReplayError> {
        let mut decided = self.decide_segment(reader, segment, LateCopies::AreRepeats).await?;
        if segment.compare(&decided.counts) == Comparison::StoresLess
            && self.first_copies.late() > 0
        {
            // Ids that were used again after the horizon, if that is what the audit has counted.
            let events = self.decide_segment(reader, segment, LateCopies::AreEvents).await?;
            if segment.compare(&events.counts) == Comparison::Agrees {
                decided = events;
            } else {
                self.first_copies.undo();
            }
        }
        let Decided { held, counts } = decided;
        let Segment { offsets, audit } = segment;
        match (segment.compare(&counts), audit) {
            (Comparison::StoresMore, Some(audit)) => {
                let (first, last) = (offsets.start, offsets.end - 1);
                let (partition, audit, found) =
                    (self.tenure.partition, audit.stored, counts.stored);
                return Err(ReplayError::StoresMore { partition, first, last, audit, found });
            }
            (Comparison::StoresLess, Some(audit)) => {
                total.not_restored += audit.stored - counts.stored;
            }
            _ => {}
        }
        for batch in &held {
            self.store(batch).await;
        }
        total.tally.stored += counts.stored;
        total.tally.duplicates += counts.duplicates;
        total.tally.conflicts += counts.conflicts;
        total.tally.dead_letters += counts.dead_letters;
        Ok(())
    }

    async fn decide_segment(
        &mut self,
        reader: &mut dyn EventLogReader,
        segment: &Segment,
        late: LateCopies,
    ) -> Result<Decided, ReplayError> {
        let partition = self.tenure.partition;
        let mut batch = Batch::new(BatchLimits::default());
        let mut done = Decided { held: Vec::new(), counts: Counts::default() };
        let (mut next, mut decided) = (segment.offsets.start, segment.offsets.start);
        self.first_copies.begin();
        while next < segment.offsets.end {
            let scanned = block_in_place(|| reader.read(partition, next, segment.offsets.end))?;
            for record in scanned.records.iter() {
                self.decide(&record, decided, late, &mut batch)?;
                decided = record.offset + 1;
                if batch.is_full() {
                    self.sealed(&mut batch, segment, &mut done).await;
                    if segment.compare(&done.counts) == Comparison::StoresMore {
                        // It is refused whatever follows, and is not to be held meanwhile.
                        return Ok(done);
                    }
                }
            }
            if self.first_copies.bytes() > self.request.memory {
                return Err(ReplayError::TooMuch { partition, allowed: self.request.memory });
            }
            next = scanned.next;
        }
        if !batch.is_empty() {
            self.sealed(&mut batch, segment, &mut done).await;
        }
        Ok(done)
    }

    /// Adds a record to the batch; those before `first` are in it or in one before.
    fn decide(
        &mut self,
        record: &FetchedRecord<'_>,
        first: Offset,
        late: LateCopies,
        batch: &mut Batch,
    ) -> Result<(), ReplayError> {
        let Self { source, tenure, at, .. } = *self;
        let (epoch, partition, offset) = (source.epoch, tenure.partition, record.offset);
        let position = Position { epoch, partition, offset };
        let outcome = match decode(source, partition, record, &mut self.key) {
            Err(NoRow::LaterEpoch(epoch)) => {
                return Err(Halt::LaterEpoch { partition, offset, epoch }.into());
            }
            Err(NoRow::Refused(refused)) => {
                Outcome::DeadLetter(park(source, position, record, refused, at))
            }
            Ok(decoded) => {
                let fingerprint = decoded.fingerprint;
                match self.first_copies.decide(&copy_of(&decoded, (epoch, offset)), late) {
                    Decision::First => Outcome::Stored(decoded),
                    Decision::Repeat => Outcome::Duplicate,
                    Decision::Conflict {
                        first: (first_epoch, first_offset),
                        first_fingerprint,
                    } => {
                        let value = record.value.into();
                        Outcome::Conflict(Conflict {
                            position,
                            value,
                            fingerprint,
                            first_epoch,
                            first_offset,
                            first_fingerprint,
                        })
                    }
                }
            }
        };
        batch.add(tenure, first, position, outcome, Instant::now());
        Ok(())
    }

    /// Takes a batch: of what the audit does not speak of it is stored at once, with its audit; else it is
    /// held until the segment was compared, and the audit stays as it is.
    async fn sealed(&self, batch: &mut Batch, segment: &Segment, done: &mut Decided) {
        let mut sealed = batch.seal(self.source, self.at);
        let Tally { stored, duplicates, conflicts, dead_letters } = sealed.tally;
        done.counts.stored += stored;
        done.counts.duplicates += duplicates;
        done.counts.conflicts += conflicts;
        done.counts.dead_letters += dead_letters;
        if segment.audit.is_none() {
            self.store(&sealed).await;
        } else {
            sealed.audit.clear();
            done.held.push(sealed);
        }
    }

    async fn store(&self, batch: &SealedBatch) {
        if !self.request.dry_run {
            insert(&self.store, batch, &CancellationToken::new()).await;
        }
    }
}
