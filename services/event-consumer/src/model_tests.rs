//! The pure core against a model of everything around it: a log, a store, two members of the group,
//! and faults at every step. Whatever happens, the store ends up with the first copies and nothing else.

use crate::batch::{Batch, BatchLimits, SealedBatch, Tenure};
use crate::decode::Source;
use crate::dedup::builder::{IndexBuilder, StoredCopy};
use crate::dedup::{PartitionIndex, PositionOrder};
use crate::partition::Round;
use crate::rebalance::Partitions;
use chrono::{DateTime, TimeDelta, Utc};
use event_log::{Assignment, FetchedRecords, Offset, PartitionId, wire};
use metering::identity::partition_of;
use metering::{IdentityHash, UsageEvent};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const PARTITIONS: PartitionId = 3;
const ORDER: PositionOrder = PositionOrder::new(1);

fn source() -> Source {
    Source { topic: "t".to_owned(), epoch: 1, partition_count: PARTITIONS }
}

fn at() -> DateTime<Utc> {
    UsageEvent::example().timestamp
}

/// What a record must become, told from the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    Duplicate,
    Conflict,
    DeadLetter,
}

#[derive(Clone, Debug)]
struct LogRecord {
    key: Vec<u8>,
    value: Vec<u8>,
    fate: Fate,
}

/// A stored row: what of it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    hash: [u8; 16],
    fingerprint: u64,
    customer: String,
}

/// A row of the audit; of several with the same start, the store keeps the one of the latest batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Audit {
    inserted_at: DateTime<Utc>,
    last: Offset,
    stored: u64,
    conflicts: u64,
}

type Place = (PartitionId, Offset);

#[derive(Default)]
struct World {
    log: BTreeMap<PartitionId, Vec<LogRecord>>,
    /// Identity → payload of its first copy, as the log has them.
    first: HashMap<u8, u8>,
    committed: BTreeMap<PartitionId, Offset>,
    rows: BTreeMap<Place, Row>,
    conflicts: BTreeMap<Place, Offset>,
    dead_letters: BTreeMap<Place, &'static str>,
    audits: BTreeMap<Place, Audit>,
    /// Batches that were given up while their insert was under way: they may land at any time.
    zombies: Vec<SealedBatch>,
    seals: i64,
}

struct Member {
    partitions: Partitions,
    batch: Batch,
    in_flight: Option<SealedBatch>,
    /// Where the log goes on for this member.
    fetched: BTreeMap<PartitionId, Offset>,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        id: u8,
        payload: u8,
        kind: u8,
    },
    Poll {
        member: bool,
        records: usize,
    },
    Decide {
        member: bool,
    },
    Seal {
        member: bool,
    },
    /// The first `steps` of the five parts of an insert happen; only with all and `heard` it is a success.
    Insert {
        member: bool,
        steps: usize,
        heard: bool,
    },
    Commit {
        member: bool,
        heard: bool,
    },
    /// SIGKILL and restart.
    Crash {
        member: bool,
    },
    /// Bit `p`: who gets partition `p`. With `all`, everything is revoked first, as an eager rebalance does.
    Rebalance {
        owners: u8,
        all: bool,
    },
    ZombieLands {
        which: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0_u8..24, 0_u8..3, 0_u8..12).prop_map(|(id, payload, kind)| Step::Append {
        id,
        payload: payload / 2,
        kind,
    });
    let poll =
        (any::<bool>(), 1_usize..9).prop_map(|(member, records)| Step::Poll { member, records });
    let insert = (any::<bool>(), 0_usize..12, any::<bool>())
        .prop_map(|(member, steps, heard)| Step::Insert { member, steps: steps.min(5), heard });
    let step = prop_oneof![
        12 => append,
        6 => poll,
        6 => any::<bool>().prop_map(|member| Step::Decide { member }),
        5 => any::<bool>().prop_map(|member| Step::Seal { member }),
        8 => insert,
        4 => (any::<bool>(), any::<bool>()).prop_map(|(member, heard)| Step::Commit { member, heard }),
        1 => any::<bool>().prop_map(|member| Step::Crash { member }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(owners, all)| Step::Rebalance { owners, all }),
        1 => any::<usize>().prop_map(|which| Step::ZombieLands { which }),
    ];
    prop::collection::vec(step, 1..250)
}

impl World {
    fn append(&mut self, id: u8, payload: u8, kind: u8) {
        let event = UsageEvent {
            transaction_id: Cow::Owned(format!("txn-{id}")),
            external_customer_id: Cow::Owned(format!("customer-{payload}")),
            ..UsageEvent::example()
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        event.write_identity_key(&mut key);
        let owner = partition_of(&key, PARTITIONS);
        wire::encode(&event, 1, &mut value);
        let (partition, fate) = match kind {
            0 => {
                value.truncate(20);
                (owner, Fate::DeadLetter)
            }
            1 => ((owner + 1) % PARTITIONS, Fate::DeadLetter),
            _ => match self.first.get(&id) {
                None => (owner, Fate::Stored),
                Some(first) if *first == payload => (owner, Fate::Duplicate),
                Some(_) => (owner, Fate::Conflict),
            },
        };
        if fate == Fate::Stored {
            self.first.insert(id, payload);
        }
        if kind == 2 {
            key.clear();
        }
        self.log.entry(partition).or_default().push(LogRecord { key, value, fate });
    }

    fn log(&self, partition: PartitionId) -> &[LogRecord] {
        self.log.get(&partition).map_or(&[], Vec::as_slice)
    }

    fn committed(&self, partition: PartitionId) -> Offset {
        self.committed.get(&partition).copied().unwrap_or(0)
    }

    /// One of the parts of an insert; each may happen any number of times.
    fn apply(&mut self, batch: &SealedBatch, step: usize) {
        match step {
            // An insert of several months is not atomic: a part of the rows may land alone.
            0 => self.rows.extend(read_rows(&batch.rows.bytes).into_iter().step_by(2)),
            1 => self.rows.extend(read_rows(&batch.rows.bytes)),
            2 => {
                let rows: Vec<_> = batch.conflicts.iter().map(|conflict| conflict.row()).collect();
                self.conflicts.extend(
                    rows.iter().map(|row| {
                        ((row.position.partition, row.position.offset), row.first_offset)
                    }),
                );
            }
            3 => {
                let place = |row: &usage_store::DeadLetterRow<'_>| {
                    (row.position.partition, row.position.offset)
                };
                self.dead_letters
                    .extend(batch.dead_letters.iter().map(|row| (place(row), "parked")));
            }
            _ => {
                for row in &batch.audit {
                    assert_eq!(row.records, row.last_offset - row.first_offset + 1);
                    let audit = Audit {
                        inserted_at: row.inserted_at,
                        last: row.last_offset,
                        stored: row.stored,
                        conflicts: row.conflicts,
                    };
                    let kept =
                        self.audits.entry((row.partition, row.first_offset)).or_insert(audit);
                    *kept = audit.max(*kept);
                }
            }
        }
    }

    /// Everything before `next` is where it belongs.
    fn assert_settled(&self, partition: PartitionId, next: Offset) {
        for (offset, record) in (0..next).zip(self.log(partition)) {
            let place = (partition, offset);
            let found = (
                self.rows.contains_key(&place),
                self.conflicts.contains_key(&place),
                self.dead_letters.contains_key(&place),
            );
            let expected = (
                record.fate == Fate::Stored,
                record.fate == Fate::Conflict,
                record.fate == Fate::DeadLetter,
            );
            assert_eq!(found, expected, "(stored, conflict, parked) of {place:?} before {next}");
        }
    }

    fn rebuilt_index(&self, partition: PartitionId) -> PartitionIndex {
        let mut builder = IndexBuilder::new(ORDER, at(), at(), 10);
        for ((_, offset), row) in self.rows.range((partition, 0)..(partition + 1, 0)) {
            builder.add(&StoredCopy {
                hash: IdentityHash(row.hash),
                place: ORDER.current(*offset),
                fingerprint: row.fingerprint,
                accepted_hour: 0,
            });
        }
        builder.build(|| ())
    }
}

/// Reads rows of `usage_events` in RowBinary, in code that shares nothing with what wrote them.
fn read_rows(mut bytes: &[u8]) -> Vec<(Place, Row)> {
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken
    }
    fn text(bytes: &mut &[u8]) -> String {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = take(bytes, 1)[0];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return String::from_utf8(take(bytes, length).to_vec()).unwrap();
            }
        }
    }
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let texts: Vec<_> = (0..6).map(|_| text(&mut bytes)).collect();
        take(&mut bytes, 8);
        if take(&mut bytes, 1) == [0] {
            take(&mut bytes, 16);
        }
        text(&mut bytes);
        take(&mut bytes, 8);
        let hash = take(&mut bytes, 16).try_into().unwrap();
        let fingerprint = u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap());
        take(&mut bytes, 2);
        let partition = u16::from_le_bytes(take(&mut bytes, 2).try_into().unwrap());
        let offset = u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap());
        rows.push(((partition, offset), Row { hash, fingerprint, customer: texts[3].clone() }));
    }
    rows
}

impl Member {
    fn new() -> Self {
        let limits = BatchLimits { rows: 7, bytes: usize::MAX, months: 50, age: Duration::ZERO };
        Self {
            partitions: Partitions::default(),
            batch: Batch::new(limits),
            in_flight: None,
            fetched: BTreeMap::new(),
        }
    }

    fn assign(&mut self, world: &World, partitions: &[PartitionId]) {
        let assignments: Vec<_> = partitions
            .iter()
            .map(|p| Assignment { partition: *p, start: world.committed(*p) })
            .collect();
        for Tenure { partition, .. } in self.partitions.assign(&assignments) {
            let index = world.rebuilt_index(partition);
            self.partitions.get_mut(partition).unwrap().set_index(index);
        }
        self.fetched.extend(assignments.iter().map(|a| (a.partition, a.start)));
    }

    fn revoke(&mut self, world: &mut World, partitions: &[PartitionId]) {
        self.partitions.revoke(partitions);
        for partition in partitions {
            self.batch.abandon(*partition);
            self.fetched.remove(partition);
        }
        if self.in_flight.as_ref().is_some_and(|batch| {
            !batch.ranges.iter().any(|range| self.partitions.holds(range.tenure))
        }) {
            world.zombies.extend(self.in_flight.take());
        }
    }

    fn poll(&mut self, world: &World, records: usize) {
        for (partition, next) in &mut self.fetched {
            let mut fetched = FetchedRecords::new(*partition);
            for (offset, record) in
                (0..).zip(world.log(*partition)).skip(usize::try_from(*next).unwrap()).take(records)
            {
                fetched.push(offset, &record.key, &record.value);
                *next = offset + 1;
            }
            self.partitions.get_mut(*partition).unwrap().receive(fetched);
        }
    }

    fn decide(&mut self) {
        let (source, mut key) = (source(), Vec::new());
        let mut round = Round {
            source: &source,
            at: at(),
            at_latest: at(),
            now: Instant::now(),
            key: &mut key,
        };
        for partition in self.partitions.iter_mut() {
            partition
                .decide_backlog(&mut self.batch, &mut round)
                .expect("the log never changes here");
        }
    }

    fn seal(&mut self, world: &mut World) {
        if self.in_flight.is_none() && !self.batch.is_empty() {
            world.seals += 1;
            self.in_flight =
                Some(self.batch.seal(&source(), at() + TimeDelta::milliseconds(world.seals)));
        }
    }

    fn insert(&mut self, world: &mut World, steps: usize, heard: bool) {
        let Some(batch) = &self.in_flight else { return };
        for step in 0..steps {
            world.apply(batch, step);
        }
        if steps == 5 && heard {
            self.partitions.inserted(&batch.ranges);
            self.in_flight = None;
        }
    }

    fn commit(&mut self, world: &mut World, heard: bool) {
        for (partition, next) in self.partitions.to_commit() {
            assert!(next >= world.committed(partition), "a commit goes backwards");
            world.assert_settled(partition, next);
            world.committed.insert(partition, next);
        }
        if heard {
            self.partitions.committed();
        }
    }
}

fn rebalance(world: &mut World, members: &mut [Member; 2], owners: u8, all: bool) {
    let mine = |member: usize| -> Vec<PartitionId> {
        (0..PARTITIONS).filter(|p| usize::from(owners >> p & 1) == member).collect()
    };
    let lost = |number: usize, member: &Member| -> Vec<PartitionId> {
        member.fetched.keys().copied().filter(|p| all || !mine(number).contains(p)).collect()
    };
    let revoked = [lost(0, &members[0]), lost(1, &members[1])];
    for (member, revoked) in members.iter_mut().zip(&revoked) {
        member.revoke(world, revoked);
    }
    for (number, member) in members.iter_mut().enumerate() {
        let new: Vec<_> =
            mine(number).into_iter().filter(|p| !member.fetched.contains_key(p)).collect();
        // A member that gets nothing is not told so, and may get something much later.
        if !new.is_empty() {
            member.assign(world, &new);
        }
    }
}

fn run(steps: Vec<Step>) -> World {
    let mut world = World::default();
    let mut members = [Member::new(), Member::new()];
    let mut owners = 0b010;
    rebalance(&mut world, &mut members, owners, true);
    for step in steps {
        match step {
            Step::Append { id, payload, kind } => world.append(id, payload, kind),
            Step::Poll { member, records } => members[usize::from(member)].poll(&world, records),
            Step::Decide { member } => members[usize::from(member)].decide(),
            Step::Seal { member } => members[usize::from(member)].seal(&mut world),
            Step::Insert { member, steps, heard } => {
                members[usize::from(member)].insert(&mut world, steps, heard);
            }
            Step::Commit { member, heard } => {
                members[usize::from(member)].commit(&mut world, heard);
            }
            Step::Crash { member } => {
                let crashed = std::mem::replace(&mut members[usize::from(member)], Member::new());
                world.zombies.extend(crashed.in_flight);
                rebalance(&mut world, &mut members, owners, true);
            }
            Step::Rebalance { owners: new, all } => {
                owners = new;
                rebalance(&mut world, &mut members, owners, all);
            }
            Step::ZombieLands { which } => {
                if !world.zombies.is_empty() {
                    let batch = world.zombies.remove(which % world.zombies.len());
                    (0..5).for_each(|step| world.apply(&batch, step));
                }
            }
        }
    }
    // All is well again: everything that is in the log gets through.
    for _ in 0..250 {
        for member in &mut members {
            member.poll(&world, 100);
            member.decide();
            member.insert(&mut world, 5, true);
            member.commit(&mut world, true);
            member.seal(&mut world);
        }
    }
    for batch in std::mem::take(&mut world.zombies) {
        (0..5).for_each(|step| world.apply(&batch, step));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_the_first_copies_and_nothing_else(steps in steps()) {
        let world = run(steps);
        for partition in 0..PARTITIONS {
            let log = world.log(partition);
            let end = Offset::try_from(log.len()).unwrap();
            prop_assert_eq!(world.committed(partition), end, "everything was committed");
            world.assert_settled(partition, end);
            let mut covered = 0;
            for ((_, first), audit) in world.audits.range((partition, 0)..(partition + 1, 0)) {
                prop_assert!(*first <= covered, "the audit has a gap before {}", first);
                let records = &log[usize::try_from(*first).unwrap()..=usize::try_from(audit.last).unwrap()];
                let count = |fate| u64::try_from(records.iter().filter(|record| record.fate == fate).count()).unwrap();
                prop_assert_eq!((audit.stored, audit.conflicts), (count(Fate::Stored), count(Fate::Conflict)));
                covered = covered.max(audit.last + 1);
            }
            prop_assert_eq!(covered, end, "the audit ends where the log does");
        }
        let payloads: HashMap<[u8; 16], String> = world.rows.values().map(|row| (row.hash, row.customer.clone())).collect();
        prop_assert_eq!(payloads.len(), world.rows.len(), "no identity is stored twice");
        prop_assert_eq!(payloads.len(), world.first.len());
        for (id, payload) in &world.first {
            let key = format!("8:org_demo,0:,{}:txn-{id},", 4 + id.to_string().len());
            let hash = metering::identity::identity_hash(key.as_bytes()).0;
            prop_assert_eq!(payloads.get(&hash), Some(&format!("customer-{payload}")), "the first payload of {}", id);
        }
    }
}
