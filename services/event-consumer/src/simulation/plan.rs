//! What a seed decides before the first step: sizes, limits, and which faults happen how often.
//!
//! Each seed leaves out about half of the faults, so that rare combinations are met undisturbed.

use super::prng::Prng;
use crate::batch::BatchLimits;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    PublishLost,
    PublishUnknown,
    PublishTwice,
    PublishDelayed,
    ClientDuplicate,
    ClientConflict,
    Poison,
    Keyless,
    EarlierEpoch,
    OffsetGap,
    InsertRefused,
    InsertAnswerLost,
    InsertLate,
    InsertPartial,
    StoreOutage,
    Merge,
    RebuildFailed,
    Rebalance,
    SessionLost,
    Stop,
    CommitRefused,
    CommitAnswerLost,
    PollFailed,
    WatermarksFailed,
    Crash,
    Drain,
    Leap,
    Skew,
    Trim,
    CommitsExpired,
    Recreate,
    RecreateSameEpoch,
    RetentionLoss,
    MemoryFull,
}

/// Each fault with how often it may happen: of a thousand occasions, at low, usual and high rate.
const RATES: [(Fault, [u64; 3]); 34] = [
    (Fault::PublishLost, [10, 50, 200]),
    (Fault::PublishUnknown, [10, 50, 200]),
    (Fault::PublishTwice, [10, 50, 200]),
    (Fault::PublishDelayed, [10, 50, 200]),
    (Fault::ClientDuplicate, [50, 200, 500]),
    (Fault::ClientConflict, [20, 100, 300]),
    (Fault::Poison, [10, 50, 300]),
    (Fault::Keyless, [20, 100, 500]),
    (Fault::EarlierEpoch, [20, 100, 500]),
    (Fault::OffsetGap, [10, 50, 200]),
    (Fault::InsertRefused, [20, 100, 400]),
    (Fault::InsertAnswerLost, [20, 100, 400]),
    (Fault::InsertLate, [20, 100, 400]),
    (Fault::InsertPartial, [20, 100, 300]),
    (Fault::StoreOutage, [1, 3, 8]),
    (Fault::Merge, [2, 10, 50]),
    (Fault::RebuildFailed, [20, 100, 400]),
    (Fault::Rebalance, [2, 6, 25]),
    (Fault::SessionLost, [2, 6, 20]),
    (Fault::Stop, [2, 6, 20]),
    (Fault::CommitRefused, [20, 100, 400]),
    (Fault::CommitAnswerLost, [20, 100, 400]),
    (Fault::PollFailed, [5, 20, 100]),
    (Fault::WatermarksFailed, [50, 200, 500]),
    (Fault::Crash, [2, 8, 25]),
    (Fault::Drain, [1, 4, 10]),
    (Fault::Leap, [1, 5, 20]),
    (Fault::Skew, [1, 5, 20]),
    (Fault::Trim, [2, 5, 20]),
    (Fault::CommitsExpired, [1, 2, 4]),
    (Fault::Recreate, [1, 2, 4]),
    (Fault::RecreateSameEpoch, [1, 2, 4]),
    (Fault::RetentionLoss, [1, 2, 4]),
    (Fault::MemoryFull, [1000, 1000, 1000]),
];

/// All that a seed decides beforehand. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) partitions: u16,
    pub(super) members: usize,
    /// Most events of which no copy was published before.
    pub(super) identities: u64,
    pub(super) steps: u64,
    pub(super) limits: BatchLimits,
    pub(super) poll_records: u64,
    pub(super) horizon: u64,
    /// How long a record may wait in the log before it is decided.
    pub(super) waited_max: u64,
    pub(super) index_bytes_max: usize,
    /// Blocks whose tokens the store remembers.
    pub(super) token_window: usize,
    /// Rebalances move single partitions, instead of taking all and giving most of it back.
    pub(super) incremental: bool,
    pub(super) static_members: bool,
    pub(super) pause_after: u64,
    pub(super) forget_interval: u64,
    /// Of a thousand steps, those of producers.
    pub(super) publishing: u64,
    rates: BTreeMap<Fault, u64>,
}

/// How big a run is, in percent; smaller ones are for reading a failure.
pub(super) const FULL_SIZE: u64 = 100;

impl Plan {
    pub(super) fn new(seed: u64, size: u64) -> Self {
        let mut prng = Prng::stream(seed, 1);
        let mut rates = BTreeMap::new();
        for (fault, choices) in RATES {
            let rate = *prng.pick(&choices);
            if prng.chance(450) {
                rates.insert(fault, rate);
            }
        }
        keep_apart(&mut rates, &mut prng);
        let limits = BatchLimits {
            rows: prng.index(12) + 1,
            bytes: *prng.pick(&[400, 3_000, usize::MAX, usize::MAX]),
            months: *prng.pick(&[1, 2, 50, 50]),
            age: Duration::from_millis(*prng.pick(&[0, 200, 1000])),
        };
        let long = !prng.chance(400);
        if !long {
            // What is beyond the horizon is only let go when time passes.
            rates.insert(Fault::Leap, *prng.pick(&[5, 20, 50]));
        }
        let horizon = if long { 35 * 24 * HOUR } else { prng.between(4, 16) * HOUR / 4 };
        let partitions = *prng.pick(&[1, 1, 2, 3, 4]);
        let identities = prng.between(4, 60);
        let index_bytes_max = if rates.contains_key(&Fault::MemoryFull) {
            usize::from(partitions) * 1700 + prng.index(30_000)
        } else {
            usize::MAX
        };
        let steps = prng.between(200, 900);
        let plan = Self {
            partitions,
            members: *prng.pick(&[1, 2, 2, 3, 4]),
            identities: (identities * size / FULL_SIZE).max(1),
            steps: (steps * size / FULL_SIZE).max(10),
            limits,
            poll_records: prng.between(1, 12),
            horizon,
            waited_max: if long { 7 * 24 * HOUR } else { prng.between(1, 6) * HOUR },
            index_bytes_max,
            token_window: *prng.pick(&[0, 1, 5, 10_000]),
            incremental: prng.chance(300),
            static_members: prng.chance(300),
            pause_after: *prng.pick(&[0, 1000, 5000]),
            forget_interval: *prng.pick(&[100, 5000, 60_000]),
            publishing: *prng.pick(&[100, 200, 400]),
            rates,
        };
        if prng.chance(30) { plan.crowded(size, &mut prng) } else { plan }
    }

    /// Only hundreds of ids make the tables of an index grow and shrink.
    fn crowded(mut self, size: u64, prng: &mut Prng) -> Self {
        self.partitions = *prng.pick(&[1, 2]);
        self.identities = 900 * size / FULL_SIZE;
        self.steps = 2500 * size / FULL_SIZE;
        self.publishing = 600;
        self.limits = BatchLimits { rows: 40, bytes: usize::MAX, months: 50, ..self.limits };
        self.poll_records = 40;
        self.horizon = HOUR;
        self.waited_max = 3 * HOUR;
        self.forget_interval = 100;
        self.rates.insert(Fault::Leap, 10);
        self = self.without(Fault::MemoryFull);
        if prng.chance(500) {
            self = self.undisturbed();
            // A little more than the tables of 64 shards take with the ids of one horizon.
            self.partitions = 1;
            self.index_bytes_max = 24_000 + prng.index(6000);
        }
        for fault in [Fault::ClientDuplicate, Fault::ClientConflict] {
            self.rates.entry(fault).and_modify(|rate| *rate = 100);
        }
        self
    }

    /// The consumer keeps its partitions, so that its indexes are never rebuilt.
    fn undisturbed(mut self) -> Self {
        self.members = 1;
        for fault in [
            Fault::Rebalance,
            Fault::SessionLost,
            Fault::Crash,
            Fault::Drain,
            Fault::CommitsExpired,
            Fault::Recreate,
            Fault::RecreateSameEpoch,
            Fault::RetentionLoss,
        ] {
            self.rates.remove(&fault);
        }
        self
    }

    /// Of a thousand occasions, how many see `fault`.
    pub(super) fn rate(&self, fault: Fault) -> u64 {
        self.rates.get(&fault).copied().unwrap_or_default()
    }

    pub(super) fn without(mut self, fault: Fault) -> Self {
        self.rates.remove(&fault);
        if fault == Fault::MemoryFull {
            self.index_bytes_max = usize::MAX;
        }
        self
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        self.rates.keys().copied().collect()
    }
}

/// At most one of the faults after which a person has to act, and each of them seldom.
fn keep_apart(rates: &mut BTreeMap<Fault, u64>, prng: &mut Prng) {
    let severe =
        [Fault::Recreate, Fault::RecreateSameEpoch, Fault::RetentionLoss, Fault::CommitsExpired];
    let kept = *prng.pick(&severe);
    rates.retain(|fault, _| *fault == kept || !severe.contains(fault));
}
