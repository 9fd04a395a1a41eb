//! The log: partitions with offsets, over all lives of the topic, and what each record has to become.
//!
//! The last part is the oracle. It is told from the order of the records and nothing else, when
//! they are appended, and shares no code with the consumer.

use super::producers::Payload;
use event_log::{FetchedRecords, Offset, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// A position over all lives of the topic: epoch, partition, offset.
pub(super) type Place = (u16, PartitionId, Offset);

/// What a record must become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stored,
    Duplicate,
    Conflict {
        first: (u16, Offset),
    },
    DeadLetter,
    /// A copy from beyond the horizon, or a later one: it may be billed again or not. So may those of
    /// events that are excused.
    Open,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// `None` for what is no event.
    pub(super) event: Option<Payload>,
    pub(super) accepted_at: u64,
    /// The latest acceptance in the partition, up to this record.
    pub(super) latest: u64,
    pub(super) fate: Fate,
    /// It is not in the log any more, was not committed, and no row of it is stored.
    pub(super) lost: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct PartitionLog {
    pub(super) low: Offset,
    pub(super) next: Offset,
    pub(super) entries: Vec<Entry>,
}

impl PartitionLog {
    pub(super) fn from(&self, offset: Offset) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.offset < offset);
        &self.entries[start..]
    }

    pub(super) fn entry(&self, offset: Offset) -> Option<&Entry> {
        self.from(offset).first().filter(|entry| entry.offset == offset)
    }

    /// The offset after the last record: what is to be committed in the end.
    pub(super) fn end(&self) -> Offset {
        self.entries.last().map_or(0, |entry| entry.offset + 1).max(self.low)
    }
}

/// A topic, from its creation to its deletion.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) epoch: u16,
    pub(super) partitions: Vec<PartitionLog>,
}

/// The first copy of an event that is in the store, or has to get there.
#[derive(Clone, Copy, Debug)]
struct First {
    place: (u16, Offset),
    payload: u64,
    accepted_at: u64,
    /// Copies came from beyond the horizon.
    open: bool,
}

#[derive(Debug)]
pub(super) struct Log {
    /// The last one is there; those before were deleted.
    pub(super) lives: Vec<Life>,
    partitions: u16,
    horizon: u64,
    first: BTreeMap<u64, First>,
    latest: Vec<u64>,
    /// Events that were in the log and not committed when it was created anew under its epoch. Nothing
    /// tells the rows of those records from the rows of the new ones at their positions.
    pub(super) excused: BTreeSet<u64>,
}

/// What is appended.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    pub(super) partition: PartitionId,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) event: Option<Payload>,
    pub(super) accepted_at: u64,
}

impl Log {
    pub(super) fn new(epoch: u16, partitions: u16, horizon: u64) -> Self {
        let mut log = Self {
            lives: Vec::new(),
            partitions,
            horizon,
            first: BTreeMap::new(),
            latest: vec![0; usize::from(partitions)],
            excused: BTreeSet::new(),
        };
        log.begin(epoch);
        log
    }

    /// A new life: nothing is in the log.
    pub(super) fn begin(&mut self, epoch: u16) {
        let partitions = vec![PartitionLog::default(); usize::from(self.partitions)];
        self.lives.push(Life { epoch, partitions });
    }

    pub(super) fn epoch(&self) -> u16 {
        self.life().epoch
    }

    pub(super) fn life(&self) -> &Life {
        self.lives.last().expect("there is always a topic")
    }

    pub(super) fn partition(&self, partition: PartitionId) -> &PartitionLog {
        &self.life().partitions[usize::from(partition)]
    }

    pub(super) fn partition_mut(&mut self, partition: PartitionId) -> &mut PartitionLog {
        let life = self.lives.last_mut().expect("there is always a topic");
        &mut life.partitions[usize::from(partition)]
    }

    pub(super) fn append(&mut self, record: NewRecord) -> &Entry {
        let NewRecord { partition, key, value, event, accepted_at } = record;
        let latest = self.latest[usize::from(partition)].max(accepted_at);
        self.latest[usize::from(partition)] = latest;
        let place = (self.epoch(), self.partition(partition).next);
        let fate = event
            .map_or(Fate::DeadLetter, |event| self.fate_of(event, place, (accepted_at, latest)));
        let offset = place.1;
        let entry = Entry { offset, key, value, event, accepted_at, latest, fate, lost: false };
        let log = self.partition_mut(partition);
        log.next += 1;
        log.entries.push(entry);
        log.entries.last().expect("just added")
    }

    fn fate_of(
        &mut self,
        event: Payload,
        place: (u16, Offset),
        (accepted_at, latest): (u64, u64),
    ) -> Fate {
        let Payload { id, payload } = event;
        let excused = self.excused.contains(&id);
        let Some(first) = self.first.get_mut(&id) else {
            self.first.insert(id, First { place, payload, accepted_at, open: excused });
            return if excused { Fate::Open } else { Fate::Stored };
        };
        first.open |= first.accepted_at + self.horizon < latest;
        if first.open {
            Fate::Open
        } else if first.payload == payload {
            Fate::Duplicate
        } else {
            Fate::Conflict { first: first.place }
        }
    }

    /// Tells all fates again, after records were lost. `stored` says whether a row of a lost record
    /// is in the store; then it stays the first copy.
    pub(super) fn retell(&mut self, stored: impl Fn(u64, &(Place, u64, u64)) -> bool) {
        self.first.clear();
        let mut lives = std::mem::take(&mut self.lives);
        for life in &mut lives {
            for (partition, log) in (0..).zip(&mut life.partitions) {
                for entry in &mut log.entries {
                    let Some(event) = entry.event else { continue };
                    let place = (life.epoch, partition, entry.offset);
                    let row = (place, entry.accepted_at, event.payload);
                    entry.lost &= !stored(event.id, &row);
                    if !entry.lost {
                        let place = (life.epoch, entry.offset);
                        entry.fate = self.fate_of(event, place, (entry.accepted_at, entry.latest));
                    }
                }
            }
        }
        self.lives = lives;
    }

    /// Records from `cursor` on, `limit` at most.
    pub(super) fn fetch(
        &self,
        partition: PartitionId,
        cursor: Offset,
        limit: usize,
    ) -> FetchedRecords {
        let mut fetched = FetchedRecords::new(partition);
        for entry in self.partition(partition).from(cursor).iter().take(limit) {
            fetched.push(entry.offset, &entry.key, &entry.value);
        }
        fetched
    }

    /// The events that are billed for sure, each with the payload of its first copy.
    pub(super) fn billed(&self) -> BTreeMap<u64, u64> {
        let closed = self.first.iter().filter(|(_, first)| !first.open);
        closed.map(|(id, first)| (*id, first.payload)).collect()
    }

    /// Whether no copy of an event was ever in the log.
    pub(super) fn forgot(&self, id: u64) -> bool {
        let entries = self.lives.iter().flat_map(|life| &life.partitions).flat_map(|p| &p.entries);
        !entries.filter_map(|entry| entry.event).any(|event| event.id == id)
    }

    /// The records that were at a place; several when the topic was created anew under its epoch.
    pub(super) fn at(&self, (epoch, partition, offset): Place) -> impl Iterator<Item = &Entry> {
        self.lives
            .iter()
            .filter(move |life| life.epoch == epoch)
            .filter_map(move |life| life.partitions[usize::from(partition)].entry(offset))
    }
}
