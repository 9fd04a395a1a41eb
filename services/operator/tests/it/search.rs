//! The search for ids that were billed more than once, on the engine, against a ledger of its own.

use crate::bench::{Bench, event};
use chrono::{DateTime, TimeDelta, Utc};
use metering::UsageEvent;
use metering::identity::identity_hash;
use operator::reconcile::Request;
use operator::reconcile::findings::{Check, Findings, Found};
use operator::reconcile::search::{self, Searched};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use usage_store::reused_ids::KEYS_MAX;
use usage_store::{EventRows, InsertToken, Position, UsageStore};

const HORIZON_DAYS: i64 = 35;

/// When the period begins; it lasts two days.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_769_900_400_000).unwrap()
}

fn end() -> DateTime<Utc> {
    start() + TimeDelta::days(2)
}

/// How much more than the period is looked at for rows that are not billed.
const AROUND: TimeDelta = TimeDelta::minutes(10);

/// What a search reports: the offsets of what was billed twice, of what was used again, and of rows that are
/// not billed.
type Reported = [BTreeSet<u64>; 3];

fn search(bench: &Bench, organization: Option<&str>, memory: u64) -> (Found, Searched) {
    let (twice, searched, _) = search_in_steps(bench, organization, memory);
    (twice, searched)
}

/// The same, and how often it has moved on.
fn search_in_steps(
    bench: &Bench,
    organization: Option<&str>,
    memory: u64,
) -> (Found, Searched, u64) {
    let steps = AtomicU64::new(0);
    let request = Request {
        period: start()..end(),
        organization: organization.map(str::to_owned),
        memory,
        examples: 1000,
        ..Bench::request()
    };
    let store = UsageStore::connect(&bench.store);
    let mut findings = Findings::new(request.examples);
    let searched = bench.runtime.block_on(async {
        let moved_on = || {
            steps.fetch_add(1, Ordering::Relaxed);
        };
        search::search(&store, &request, &mut findings, &moved_on).await.unwrap()
    });
    let twice = findings.against(Check::NothingBilledTwice).cloned().unwrap_or_default();
    (twice, searched, steps.into_inner())
}

fn offsets(found: &Found) -> BTreeSet<u64> {
    let offsets: BTreeSet<_> =
        found.examples.iter().map(|example| example.position.offset).collect();
    assert_eq!(u64::try_from(offsets.len()).unwrap(), found.count, "each is reported once");
    offsets
}

/// A row whose offset is its place in the list.
#[derive(Clone, Debug)]
struct Row {
    id: u8,
    /// Rows of one id and usage time have one sort key: the first in the log is billed.
    used: u8,
    accepted_at: DateTime<Utc>,
    partition: u16,
    /// How often it is stored, as replays do.
    copies: u8,
}

impl Row {
    fn organization(&self) -> &'static str {
        if self.id.is_multiple_of(3) { "org_third" } else { "org_demo" }
    }

    fn event(&self) -> UsageEvent<'static> {
        UsageEvent {
            organization_id: Cow::Borrowed(self.organization()),
            timestamp: start() + TimeDelta::minutes(self.used.into()),
            accepted_at: self.accepted_at,
            ..event(self.id, 1)
        }
    }
}

/// Rows whose acceptance is often near a boundary of the period, of what is around it, or about a horizon away.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let boundary = prop_oneof![
        Just(start()),
        Just(start() - AROUND),
        Just(end()),
        Just(end() + AROUND),
        (-90_i64..90).prop_map(|days| start() + TimeDelta::days(days)),
        prop::sample::select(vec![-36, -35, -34, 1, 37])
            .prop_map(|days| start() + TimeDelta::days(days)),
    ];
    let accepted_at =
        (boundary, -1_i64..2).prop_map(|(at, millis)| at + TimeDelta::milliseconds(millis));
    let row = (0_u8..12, 0_u8..3, accepted_at, 0_u16..3, 1_u8..3).prop_map(
        |(id, used, accepted_at, partition, copies)| Row {
            id,
            used,
            accepted_at,
            partition,
            copies,
        },
    );
    prop::collection::vec(row, 0..40)
}

/// Stores them in several batches: of one batch the server keeps one row of each sort key.
async fn store_rows(store: &UsageStore, rows: &[Row]) {
    for (copy, batch) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
        let mut encoded = EventRows::default();
        for (offset, row) in (0..).zip(rows) {
            if row.copies <= copy || (copy == 0 && offset % 3 != batch) {
                continue;
            }
            let (event, mut key) = (row.event(), Vec::new());
            event.write_identity_key(&mut key);
            let position = Position { epoch: 1, partition: row.partition, offset };
            encoded.push(&event, position, identity_hash(&key), event.payload_fingerprint());
        }
        let encoded = encoded.finish();
        let token = InsertToken::new("search", &[], &encoded.bytes);
        if encoded.rows > 0 {
            store.restoring().insert_events(&encoded, &token).await.unwrap();
        }
    }
}

/// By the rules alone; `there` are the offsets whose rows no merge has dropped yet.
fn expected(rows: &[Row], organization: Option<&str>, there: &BTreeSet<u64>) -> Reported {
    let mut stored: BTreeMap<u8, Vec<(u64, &Row)>> = BTreeMap::new();
    for (offset, row) in (0..).zip(rows) {
        if organization.is_none_or(|only| only == row.organization()) {
            stored.entry(row.id).or_default().push((offset, row));
        }
    }
    let accepted = |offset: u64| rows[usize::try_from(offset).unwrap()].accepted_at;
    let (mut twice, mut again, mut hidden) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for of_id in stored.into_values() {
        let mut used = BTreeSet::new();
        let (billed, not): (Vec<_>, Vec<_>) =
            of_id.iter().copied().partition(|(_, row)| used.insert(row.used));
        let around = start() - AROUND..end() + AROUND;
        if of_id.iter().any(|(at, row)| there.contains(at) && around.contains(&row.accepted_at)) {
            hidden
                .extend(not.into_iter().map(|(offset, _)| offset).filter(|at| there.contains(at)));
        }
        let places: Vec<_> = billed.into_iter().map(|(offset, _)| offset).collect();
        if !places.iter().any(|place| (start()..end()).contains(&accepted(*place))) {
            continue;
        }
        for pair in places.windows(2) {
            let beyond = accepted(pair[1]) - accepted(pair[0]) > TimeDelta::days(HORIZON_DAYS);
            if beyond { &mut again } else { &mut twice }.insert(pair[1]);
        }
    }
    [twice, again, hidden]
}

#[test]
fn every_row_too_many_is_found_whatever_the_memory() {
    let bench = Bench::embedded();
    let store = UsageStore::connect(&bench.store);
    // No part is small enough to be merged between two looks at it.
    bench.execute(
        "ALTER TABLE usage_events MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1",
    );
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&rows(), |rows| {
        bench.execute("TRUNCATE TABLE usage_events");
        bench.runtime.block_on(store_rows(&store, &rows));
        let there = bench.lines("SELECT DISTINCT kafka_offset FROM usage_events");
        let there: BTreeSet<u64> = there.iter().map(|offset| offset.parse().unwrap()).collect();
        for organization in [None, Some("org_third")] {
            let expected = expected(&rows, organization, &there);
            // Ten rows at a time, and all.
            for memory in [170, 1 << 20] {
                let (twice, searched) = search(&bench, organization, memory);
                let hidden = searched.hidden.iter().map(|(position, _)| position.offset).collect();
                let found = [offsets(&twice), offsets(&searched.beyond_horizon), hidden];
                prop_assert_eq!(&found, &expected, "{} bytes", memory);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// An id with one event in the middle of the period, and one at each boundary of what is read, or beside it.
#[test]
fn no_event_falls_between_what_is_read_and_what_is_met() {
    let bench = Bench::embedded();
    let store = UsageStore::connect(&bench.store);
    let middle = start() + TimeDelta::days(1);
    let boundaries = [start() - AROUND, start(), end(), end() + AROUND];
    let beside = boundaries
        .into_iter()
        .flat_map(|at| (-1..2).map(move |millis| at + TimeDelta::milliseconds(millis)));
    let rows: Vec<_> = (0..)
        .zip(beside)
        .flat_map(|(id, at)| {
            [middle, at].map(|accepted_at| {
                let used = u8::from(accepted_at == at);
                Row { id, used, accepted_at, partition: 0, copies: 1 }
            })
        })
        .collect();
    bench.runtime.block_on(store_rows(&store, &rows));
    let (twice, _) = search(&bench, None, 1 << 20);
    assert_eq!(offsets(&twice), (0..12).map(|id| 2 * id + 1).collect());
}

/// No consumer writes them, but a number of partitions that was changed under one epoch could.
#[test]
fn copies_at_one_offset_of_two_partitions_are_found() {
    let bench = Bench::embedded();
    let store = UsageStore::connect(&bench.store);
    for (partition, used) in [(0, 0), (1, 1)] {
        let row = Row { id: 1, used, accepted_at: start(), partition, copies: 1 };
        bench.runtime.block_on(store_rows(&store, &[row]));
    }
    assert_eq!(search(&bench, None, 1 << 20).0.count, 1);
}

/// One more than a query may ask for, in the period and around it.
#[test]
fn more_doubles_than_a_query_asks_for_are_all_counted() {
    let bench = Bench::embedded();
    let doubles = KEYS_MAX + 1;
    let insert = |first: usize, accepted_at: DateTime<Utc>| {
        bench.execute(&format!(
            "INSERT INTO usage_events (organization_id, transaction_id, timestamp, accepted_at, identity_hash, topic_epoch, kafka_offset) \
             SELECT 'o', toString(number), fromUnixTimestamp64Milli({0}, 'UTC'), fromUnixTimestamp64Milli({0}, 'UTC'), \
             sipHash128(number), 1, number + {first} FROM numbers({doubles})",
            accepted_at.timestamp_millis()
        ));
    };
    insert(0, start() - TimeDelta::milliseconds(1));
    insert(doubles, end() - TimeDelta::milliseconds(1));
    insert(2 * doubles, end() + TimeDelta::days(36));
    let doubles = u64::try_from(doubles).unwrap();
    for memory in [100_000 * 17, 1000 * 17] {
        let (twice, searched) = search(&bench, None, memory);
        let again = searched.beyond_horizon.count;
        assert_eq!((twice.count, again), (doubles, doubles), "{memory} bytes");
    }
}

/// The rows around a period are kept with its own, and may be many more.
#[test]
fn a_quiet_period_beside_a_busy_time_is_searched_in_one_pass() {
    let bench = Bench::embedded();
    let (mut encoded, mut key) = (EventRows::default(), Vec::new());
    for offset in 0..3_000 {
        let accepted_at = start() - TimeDelta::minutes(1);
        let event = UsageEvent { accepted_at, ..event(format!("busy-{offset}"), 1) };
        key.clear();
        event.write_identity_key(&mut key);
        let position = Position { epoch: 1, partition: 0, offset };
        encoded.push(&event, position, identity_hash(&key), event.payload_fingerprint());
    }
    let encoded = encoded.finish();
    let token = InsertToken::new("search", &[], &encoded.bytes);
    let store = UsageStore::connect(&bench.store);
    bench.runtime.block_on(store.insert_events(&encoded, &token)).unwrap();
    let (_, _, steps) = search_in_steps(&bench, None, 1 << 20);
    assert_eq!(steps, 2, "the rows of the time around the period, and all others");
}
