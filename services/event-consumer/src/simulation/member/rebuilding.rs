//! The rebuild that is under way, as in `pipeline/rebuilding.rs` and `dedup/rebuild.rs`: one scan for all
//! partitions that wait.

use super::super::coverage::Seen;
use super::super::plan::Fault;
use super::super::sabotage::Sabotage;
use super::super::world::{World, instant};
use super::{Member, Report};
use crate::batch::Tenure;
use crate::dedup::builder::{IndexBuilder, StoredCopy};
use crate::dedup::{PartitionIndex, PositionOrder};
use chrono::{DateTime, Utc};
use event_log::{Offset, PartitionId};
use metering::IdentityHash;
use std::collections::BTreeMap;

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// A stored id: epoch, offset, hash, fingerprint and when it was accepted.
pub(super) type Identity = (u16, Offset, [u8; 16], u64, i64);

#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) index: PartitionIndex,
    pub(super) highest_stored: Option<Offset>,
}

#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) tenures: Vec<Tenure>,
    /// The time at its start.
    at: DateTime<Utc>,
    bytes_max: usize,
    /// What the audit has said; then the rows are read.
    audited: Option<Audited>,
    pub(super) reported: bool,
}

#[derive(Debug)]
struct Audited {
    highest_stored: BTreeMap<PartitionId, Option<Offset>>,
    since: DateTime<Utc>,
    /// How many late statements had landed by then.
    landings: u64,
}

/// The indexes of all partitions, or the memory that was not enough.
pub(super) type Outcome = Result<BTreeMap<PartitionId, Rebuilt>, usize>;

impl Member {
    pub(super) fn start_next_rebuild(&mut self, world: &World) {
        if self.rebuilding.is_some() || self.waiting.is_empty() {
            return;
        }
        self.rebuilding = Some(Rebuild {
            tenures: std::mem::take(&mut self.waiting),
            at: self.time.earliest(instant(world.clock()), world.instant()),
            bytes_max: self.room(),
            audited: None,
            reported: false,
        });
    }

    pub(super) fn abandon_rebuild_unless_held(&mut self, world: &mut World) {
        let held = |tenure: &Tenure| self.partitions.holds(*tenure);
        self.waiting.retain(held);
        self.opening.retain(|(tenure, _)| held(tenure));
        if self.rebuilding.take_if(|rebuild| !rebuild.tenures.iter().any(held)).is_some() {
            world.coverage.note(Seen::RebuildAbandoned);
        }
    }

    /// Asks the audit, or reads the rows and reports.
    pub(in super::super) fn advance_rebuild(&mut self, world: &mut World) {
        let Some(mut rebuild) = self.rebuilding.take_if(|rebuild| !rebuild.reported) else {
            return;
        };
        let failed = world.store_is_away() || world.happens(Fault::RebuildFailed);
        if failed {
            world.coverage.note(Seen::RebuildFailed);
        }
        match rebuild.audited.take() {
            _ if failed && world.sabotage == Some(Sabotage::FailedRebuildIsEmpty) => {
                let outcome = rebuild.empty(self.order);
                self.report(&mut rebuild, outcome);
            }
            _ if failed => {}
            None => rebuild.audited = Some(self.ask_audit(world, &rebuild)),
            Some(audited) => {
                if audited.landings != world.landings {
                    world.coverage.note(Seen::LandedDuringRebuild);
                }
                let outcome = self.read_rows(world, &rebuild, &audited);
                self.report(&mut rebuild, outcome);
            }
        }
        self.rebuilding = Some(rebuild);
    }

    fn report(&mut self, rebuild: &mut Rebuild, outcome: Outcome) {
        rebuild.reported = true;
        self.reports.push_back(Report::Rebuilt { tenures: rebuild.tenures.clone(), outcome });
    }

    fn ask_audit(&self, world: &World, rebuild: &Rebuild) -> Audited {
        let epoch = self.order.epoch();
        let (mut highest_stored, mut latest) = (BTreeMap::new(), rebuild.at);
        for Tenure { partition, .. } in &rebuild.tenures {
            highest_stored.insert(*partition, world.store.highest_stored(epoch, *partition));
            let recent = world.store.recent_insert(epoch, *partition);
            latest = recent.map_or(latest, |recent| recent.min(latest));
        }
        let past = world.plan.horizon + world.plan.waited_max;
        let since = latest - std::time::Duration::from_millis(past);
        Audited { highest_stored, since, landings: world.landings }
    }

    fn read_rows(&mut self, world: &mut World, rebuild: &Rebuild, audited: &Audited) -> Outcome {
        let mut rebuilt = BTreeMap::new();
        let mut needed = 0;
        for Tenure { partition, .. } in &rebuild.tenures {
            let rows = self.rows_of(world, *partition, audited.since);
            needed += IndexBuilder::bytes_for(rows.len());
            // More or less rows than were counted have landed meanwhile.
            let expected = world.prng.index(2 * rows.len() + 1);
            let mut builder = IndexBuilder::new(self.order, audited.since, rebuild.at, expected);
            for (epoch, offset, hash, fingerprint, accepted_at) in rows {
                let place = self.order.stored(epoch, offset).expect("of this epoch or before");
                let hour = u32::try_from(accepted_at.div_euclid(MILLIS_PER_HOUR));
                builder.add(&StoredCopy {
                    hash: IdentityHash(hash),
                    place,
                    fingerprint,
                    accepted_hour: hour.expect("a year of this century"),
                });
            }
            if world.prng.chance(300) {
                builder.compact();
            }
            let highest_stored = audited.highest_stored[partition];
            rebuilt.insert(*partition, Rebuilt { index: builder.build(|| ()), highest_stored });
        }
        if needed > rebuild.bytes_max { Err(rebuild.bytes_max) } else { Ok(rebuilt) }
    }

    /// The stored ids of a partition. The store answers in any order.
    fn rows_of(
        &mut self,
        world: &mut World,
        partition: PartitionId,
        since: DateTime<Utc>,
    ) -> Vec<Identity> {
        let epoch = self.order.epoch();
        let rows = world.store.identities(epoch, partition, since.timestamp_millis());
        let identity = |row: &super::super::store::Row| {
            (row.place.0, row.place.2, row.hash, row.fingerprint, row.accepted_at)
        };
        let mut rows: Vec<Identity> = rows.map(identity).collect();
        if world.sabotage == Some(Sabotage::StaleRebuild) {
            rows = self.remembered.entry(partition).or_insert(rows).clone();
        }
        let start = self.partitions.get_mut(partition).map_or(0, |owned| owned.next());
        if rows.iter().any(|(of, offset, ..)| *of == epoch && *offset >= start) {
            world.coverage.note(Seen::RebuildBeyondStart);
        }
        if rows.len() > 1 {
            let middle = world.prng.index(rows.len());
            rows.rotate_left(middle);
        }
        rows
    }
}

impl Rebuild {
    fn empty(&self, order: PositionOrder) -> Outcome {
        let index = || Rebuilt { index: PartitionIndex::new(order), highest_stored: None };
        Ok(self.tenures.iter().map(|tenure| (tenure.partition, index())).collect())
    }
}
