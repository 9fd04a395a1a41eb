//! What has happened how often: a simulator that never reaches a branch proves nothing about it.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that has to happen in the runs of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    // Producers.
    PublishAcknowledged,
    PublishLost,
    PublishUnknown,
    PublishTwice,
    PublishDelayed,
    PublishReordered,
    ClientDuplicate,
    ClientConflict,
    PoisonRecord,
    KeylessRecord,
    EarlierEpochRecord,
    OffsetGap,
    // The store.
    InsertConfirmed,
    InsertRefused,
    InsertAnswerLost,
    InsertLandedLate,
    InsertLandedPartly,
    InsertTokenDropped,
    InsertDuplicated,
    InsertAbandoned,
    StoreOutage,
    Merge,
    LandedDuringRebuild,
    // The index.
    RebuildFailed,
    RebuildAbandoned,
    RebuildEmpty,
    RebuildOfRows,
    RebuildBeyondStart,
    IndexRetained,
    IndexTooLarge,
    MemoryFull,
    MemoryFreed,
    HorizonPassed,
    RebilledBeyondHorizon,
    // Decisions.
    FirstCopy,
    Duplicate,
    Conflict,
    DeadLetter,
    BatchOfDuplicatesOnly,
    BatchOfSeveralPartitions,
    BatchFull,
    BatchWaited,
    PausedAll,
    PausedForIndex,
    // The group.
    Assigned,
    Revoked,
    RevokedWithBatch,
    RevokedDuringInsert,
    SessionLost,
    Stopped,
    ZombieInserted,
    CommitConfirmed,
    CommitFenced,
    CommitRefused,
    CommitAnswerLost,
    StaticRestart,
    PollFailed,
    WatermarksFailed,
    // Processes, clocks and topics.
    CrashBefore(Boundary),
    Drained,
    DrainTimedOut,
    TimeLeapt,
    ClockSkewed,
    RetentionTrimmed,
    CommitsExpired,
    TopicRecreated,
    StaleEpochStopped,
    SameEpochRecreated,
    SameEpochStopped,
    LossStopped,
}

/// The step before which a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Boundary {
    Poll,
    Decide,
    Send,
    TakeReports,
    Commit,
    Steer,
    Observe,
    InsertEvents,
    InsertConflicts,
    InsertDeadLetters,
    InsertAudit,
}

impl Boundary {
    pub(super) const ALL: [Self; 11] = [
        Self::Poll,
        Self::Decide,
        Self::Send,
        Self::TakeReports,
        Self::Commit,
        Self::Steer,
        Self::Observe,
        Self::InsertEvents,
        Self::InsertConflicts,
        Self::InsertDeadLetters,
        Self::InsertAudit,
    ];
}

impl Seen {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[rustfmt::skip]
        let plain = [
            Self::PublishAcknowledged, Self::PublishLost, Self::PublishUnknown, Self::PublishTwice,
            Self::PublishDelayed, Self::PublishReordered, Self::ClientDuplicate, Self::ClientConflict,
            Self::PoisonRecord, Self::KeylessRecord, Self::EarlierEpochRecord, Self::OffsetGap,
            Self::InsertConfirmed, Self::InsertRefused, Self::InsertAnswerLost, Self::InsertLandedLate,
            Self::InsertLandedPartly, Self::InsertTokenDropped, Self::InsertDuplicated, Self::InsertAbandoned,
            Self::StoreOutage, Self::Merge, Self::LandedDuringRebuild,
            Self::RebuildFailed, Self::RebuildAbandoned, Self::RebuildEmpty, Self::RebuildOfRows,
            Self::RebuildBeyondStart, Self::IndexRetained, Self::IndexTooLarge, Self::MemoryFull,
            Self::MemoryFreed, Self::HorizonPassed, Self::RebilledBeyondHorizon,
            Self::FirstCopy, Self::Duplicate, Self::Conflict, Self::DeadLetter,
            Self::BatchOfDuplicatesOnly, Self::BatchOfSeveralPartitions, Self::BatchFull, Self::BatchWaited,
            Self::PausedAll, Self::PausedForIndex,
            Self::Assigned, Self::Revoked, Self::RevokedWithBatch, Self::RevokedDuringInsert,
            Self::SessionLost, Self::Stopped, Self::ZombieInserted,
            Self::CommitConfirmed, Self::CommitFenced, Self::CommitRefused, Self::CommitAnswerLost,
            Self::StaticRestart, Self::PollFailed, Self::WatermarksFailed,
            Self::Drained, Self::DrainTimedOut, Self::TimeLeapt, Self::ClockSkewed,
            Self::RetentionTrimmed, Self::CommitsExpired, Self::TopicRecreated, Self::StaleEpochStopped,
            Self::SameEpochRecreated, Self::SameEpochStopped, Self::LossStopped,
        ];
        plain.into_iter().chain(Boundary::ALL.map(Self::CrashBefore))
    }
}

/// Counts of one run or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    counts: BTreeMap<Seen, u64>,
}

impl Coverage {
    pub(super) fn note(&mut self, seen: Seen) {
        *self.counts.entry(seen).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (seen, count) in &other.counts {
            *self.counts.entry(*seen).or_default() += count;
        }
    }

    /// What never happened.
    pub(super) fn missing(&self) -> Vec<Seen> {
        Seen::all().filter(|seen| !self.counts.contains_key(seen)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seen in Seen::all() {
            let count = self.counts.get(&seen).copied().unwrap_or_default();
            writeln!(f, "{count:>12}  {seen:?}")?;
        }
        Ok(())
    }
}
