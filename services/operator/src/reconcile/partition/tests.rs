//! Each kind of damage, on one partition, without engines.

use super::*;
use crate::reconcile::findings::Check;
use chrono::TimeDelta;
use event_log::FetchedRecords;
use metering::Quantity;
use metering::identity::identity_hash;
use std::borrow::Cow;
use usage_store::reused_ids::key_of;
use xxhash_rust::xxh3::xxh3_64;

const START: Offset = 100;

fn at(minutes: i64) -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
}

fn scope() -> Scope {
    Scope {
        source: Source { topic: "usage.events".to_owned(), epoch: 2, partition_count: 1 },
        partition: 0,
        window: at(-10)..at(70),
        offsets: START..200,
        appended: START..200,
        log: 50..300,
        organization: None,
        hidden: BTreeSet::new(),
    }
}

fn event(id: &str, units: i128) -> UsageEvent<'static> {
    UsageEvent {
        transaction_id: Cow::Owned(id.to_owned()),
        value: Quantity::from_units(units),
        accepted_at: at(30),
        ..UsageEvent::example()
    }
}

fn row<'a>(event: &'a UsageEvent<'_>, epoch: u16, offset: Offset) -> StoredEvent<'a> {
    StoredEvent {
        position: Position { epoch, partition: 0, offset },
        organization_id: Cow::Borrowed(&event.organization_id),
        transaction_scope: Cow::Borrowed(&event.transaction_scope),
        transaction_id: Cow::Borrowed(&event.transaction_id),
        external_customer_id: Cow::Borrowed(&event.external_customer_id),
        external_subscription_id: Cow::Borrowed(&event.external_subscription_id),
        code: Cow::Borrowed(&event.code),
        timestamp: event.timestamp.timestamp_millis(),
        units: event.value.map(Quantity::units),
        properties_hash: xxh3_64(event.properties.as_str().as_bytes()),
        accepted_at: event.accepted_at,
        identity_key: key(event),
    }
}

fn key(event: &UsageEvent<'_>) -> u64 {
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    key_of(&identity_hash(&key).0)
}

/// A log, and what the consumer made of it; a test then damages the latter.
#[derive(Default)]
struct World {
    records: Vec<(Offset, Vec<u8>)>,
    rows: Vec<(UsageEvent<'static>, u16, Offset)>,
    conflicts: Vec<(UsageEvent<'static>, Offset)>,
    parked: Vec<Offset>,
    history: Vec<FirstCopy>,
}

impl World {
    /// A first copy, its repeat, a conflict, a record that is none, and a second event.
    fn sound() -> Self {
        let mut world = Self::default();
        world.publish(START, &event("a", 5));
        world.publish(START + 1, &event("a", 5));
        world.publish(START + 2, &event("a", 6));
        world.records.push((START + 3, b"garbage".to_vec()));
        world.publish(START + 4, &event("b", 7));
        world.rows = vec![(event("a", 5), 2, START), (event("b", 7), 2, START + 4)];
        world.conflicts = vec![(event("a", 6), START + 2)];
        world.parked = vec![START + 3];
        world
    }

    fn publish(&mut self, offset: Offset, event: &UsageEvent<'_>) {
        let mut value = Vec::new();
        wire::encode(event, 2, &mut value);
        self.records.push((offset, value));
    }

    fn check(&self) -> (Results, Records, BTreeSet<(u16, Offset)>) {
        self.check_in(&scope())
    }

    fn check_in(&self, scope: &Scope) -> (Results, Records, BTreeSet<(u16, Offset)>) {
        let mut results = Results {
            table: Table::new(at(0)..at(60)),
            findings: Findings::new(9),
            unreadable: Unreadable::default(),
        };
        let mut check = PartitionCheck::new(scope, &mut results, u64::MAX);
        let mut fetched = FetchedRecords::new(0);
        self.records.iter().for_each(|(offset, value)| fetched.push(*offset, b"", value));
        self.rows.iter().for_each(|(event, epoch, offset)| check.row(&row(event, *epoch, *offset)));
        for (event, offset) in &self.conflicts {
            let (organization_id, accepted_at) =
                (Cow::Borrowed(event.organization_id.as_ref()), event.accepted_at);
            check.conflict(&StoredConflict { offset: *offset, organization_id, accepted_at });
        }
        self.parked.iter().for_each(|offset| check.parked(*offset));
        let within = |record: &FetchedRecord<'_>| scope.offsets.contains(&record.offset);
        fetched.iter().filter(within).for_each(|record| check.record(&record));
        let keys = check.history_keys(usize::MAX);
        let asked = |first: &&FirstCopy| keys.contains(&key_of(&first.hash));
        self.history.iter().filter(asked).for_each(|first| check.history(first));
        if check.settle() {
            fetched.iter().filter(within).for_each(|record| check.missing_record(&record));
        }
        for far in check.far().collect::<Vec<_>>() {
            check.far_record(
                far,
                fetched.iter().find(|record| record.offset == far.offset).as_ref(),
            );
        }
        let without_log = check.take_without_log();
        let records = check.finish();
        (results, records, without_log)
    }

    /// What is found, and the difference of the books.
    fn found(&self) -> (Vec<(Check, Offset)>, i128) {
        let (mut results, ..) = self.check();
        let mut found = Vec::new();
        for check in Check::ALL {
            let against = results.findings.against(check).cloned().unwrap_or_default();
            found.extend(against.examples.iter().map(|example| (check, example.position.offset)));
        }
        let line = results.table.line("org_demo", at(30)).unwrap();
        (found, results.table.at(line).difference())
    }
}

#[test]
fn sound_books_balance() {
    let (mut results, records, without_log) = World::sound().check();
    assert!(results.findings.is_empty(), "{:?}", results.findings);
    let id = results.table.line("org_demo", at(30)).unwrap();
    let line = results.table.at(id).clone();
    assert_eq!(
        (line.accepted, line.billed, line.repeats, line.conflicts, line.parked),
        (4, 2, 1, 1, 0)
    );
    assert_eq!(line.difference(), 0);
    assert_eq!(line.log_hash, line.store_hash);
    assert_eq!(results.unreadable, Unreadable { accepted: 1, parked: 1 });
    use Became::{Conflict, Duplicate, Nothing, Parked, Stored};
    assert_eq!(records.became[..6], [Stored, Duplicate, Conflict, Parked, Stored, Nothing]);
    assert!(without_log.is_empty());
}

#[test]
fn a_missing_row_is_found_and_its_repeats_stay_repeats() {
    let mut world = World::sound();
    world.rows.remove(0);
    assert_eq!(world.found(), (vec![(Check::EveryEventBilled, START)], 1));
    let (mut results, ..) = world.check();
    let id = results.table.line("org_demo", at(30)).unwrap();
    let line = results.table.at(id).clone();
    assert_ne!(line.log_hash, line.store_hash);
    world.rows.push((event("a", 5), 2, START));
    assert_eq!(line.log_hash, {
        let (mut results, ..) = world.check();
        results.table.at(id).store_hash
    });
}

#[test]
fn an_extra_row_is_found_wherever_it_stands() {
    for offset in [START + 9, START + 3, 299, 300, 1 << 40] {
        let mut world = World::sound();
        world.rows.push((event("x", 1), 2, offset));
        assert_eq!(world.found(), (vec![(Check::NothingElseBilled, offset)], -1), "at {offset}");
    }
    let mut world = World::sound();
    world.rows.insert(0, (event("x", 1), 2, START));
    assert_eq!(world.found(), (vec![(Check::NothingElseBilled, START)], -1));
}

#[test]
fn a_billed_repeat_is_too_much() {
    let mut world = World::sound();
    world.rows.push((event("a", 5), 2, START + 1));
    let (mut results, ..) = world.check();
    let id = results.table.line("org_demo", at(30)).unwrap();
    // Two rows for two records balance; that they are of one id is for the search for re-used ids.
    assert_eq!(results.table.at(id).repeats, 0);
    assert_eq!(results.table.at(id).billed, 3);
}

#[test]
fn a_changed_value_and_swapped_values_are_found() {
    let mut world = World::sound();
    world.rows[1].0 = event("b", 8);
    assert_eq!(world.found(), (vec![(Check::ContentUnchanged, START + 4)], 0));
    world.rows[0].0 = event("a", 7);
    world.rows[1].0 = event("b", 5);
    let found = vec![(Check::ContentUnchanged, START), (Check::ContentUnchanged, START + 4)];
    assert_eq!(world.found(), (found, 0));
}

#[test]
fn a_conflict_or_a_dead_letter_that_is_not_kept_is_found_and_so_is_one_too_many() {
    let mut world = World::sound();
    world.conflicts.clear();
    assert_eq!(world.found(), (vec![(Check::ConflictsKept, START + 2)], 1));
    world.conflicts = vec![(event("a", 6), START + 2), (event("a", 5), START + 1)];
    assert_eq!(world.found(), (vec![(Check::ConflictsKept, START + 1)], 0));
    let mut world = World::sound();
    world.conflicts.push((event("x", 6), START + 50));
    assert_eq!(world.found(), (vec![(Check::ConflictsKept, START + 50)], -1));
    let mut world = World::sound();
    world.parked.clear();
    assert_eq!(world.found(), (vec![(Check::RecordsParked, START + 3)], 0));
    world.parked = vec![START + 3, START + 4];
    assert_eq!(world.found(), (vec![(Check::RecordsParked, START + 4)], 0));
}

#[test]
fn a_first_copy_from_before_the_range_makes_a_repeat() {
    let mut world = World::sound();
    world.rows.remove(0);
    let first = event("a", 6);
    let mut key = Vec::new();
    first.write_identity_key(&mut key);
    let stored = FirstCopy {
        epoch: 1,
        offset: 1 << 30,
        hash: metering::identity::identity_hash(&key).0,
        fingerprint: first.payload_fingerprint(),
        accepted_at: at(-10_000),
    };
    world.history.push(stored);
    // Of the copies in the range two say something else than the stored one, and one says the same.
    world.conflicts = vec![(event("a", 5), START), (event("a", 5), START + 1)];
    assert_eq!(world.found(), (vec![], 0));
    world.history[0].epoch = 2;
    assert_eq!(world.found().0[0], (Check::EveryEventBilled, START), "that one stands behind");
}

#[test]
fn rows_without_a_log_are_counted_apart() {
    let mut world = World::sound();
    world.rows.push((event("old", 1), 1, 7));
    world.rows.push((event("deleted", 1), 2, 49));
    let (mut results, _, without_log) = world.check();
    assert!(results.findings.is_empty());
    let id = results.table.line("org_demo", at(30)).unwrap();
    assert_eq!(results.table.at(id).billed_without_log, 2);
    assert_eq!(results.table.at(id).difference(), 0);
    assert_eq!(without_log, BTreeSet::from([(1, 7), (2, 49)]));
}

/// As a replay leaves them, until they are merged.
#[test]
fn copies_of_rows_count_once_wherever_they_stand() {
    let mut world = World::sound();
    world.publish(250, &event("late", 3));
    world.rows.push((event("late", 3), 2, 250));
    world.rows.push((event("deleted", 1), 2, 49));
    world.rows.push((event("behind", 1), 2, 300));
    let once = world.found();
    assert_eq!(once, (vec![(Check::NothingElseBilled, 300)], -1));
    world.rows = world.rows.iter().flat_map(|row| [row.clone(), row.clone()]).collect();
    world.rows.extend(world.rows.clone());
    assert_eq!(world.found(), once);
    let (mut results, ..) = world.check();
    let id = results.table.line("org_demo", at(30)).unwrap();
    assert_eq!(results.table.at(id).billed_without_log, 1);
    // A second row that says something else is no copy.
    let (first, epoch, offset) = world.rows[0].clone();
    world.rows.push((UsageEvent { value: Quantity::from_units(77), ..first }, epoch, offset));
    let (found, difference) = world.found();
    assert!(found.contains(&(Check::NothingElseBilled, offset)), "{found:?}");
    assert_eq!(difference, -2);
}

#[test]
fn a_hidden_row_is_not_billed() {
    let mut world = World::sound();
    let (first, epoch, _) = world.rows[0].clone();
    let (own, other) = (key(&first), key(&event("other", 1)));
    // A repeat of the first event that was stored, and that the first one hides.
    world.rows.push((first, epoch, START + 1));
    let hidden = |key| BTreeSet::from([(2, START + 1, key)]);
    // One of another id at the same place is billed.
    let cases = [(BTreeSet::new(), [3, 0]), (hidden(own), [2, 1]), (hidden(other), [3, 0])];
    for (hidden, counts) in cases {
        let (mut results, ..) = world.check_in(&Scope { hidden, ..scope() });
        assert!(results.findings.is_empty());
        let id = results.table.line("org_demo", at(30)).unwrap();
        let line = results.table.at(id);
        assert_eq!([line.billed, line.repeats], counts);
        assert_eq!(line.difference(), 0);
    }
}

#[test]
fn a_row_far_from_the_period_is_compared_with_its_own_record() {
    let mut world = World::sound();
    world.publish(250, &event("late", 3));
    world.rows.push((event("late", 3), 2, 250));
    assert_eq!(world.found(), (vec![], 0));
    world.rows[2].0 = event("late", 4);
    assert_eq!(world.found(), (vec![(Check::ContentUnchanged, 250)], 0));
}

#[test]
fn what_was_accepted_outside_of_the_window_is_not_judged() {
    let mut world = World::sound();
    let outside = UsageEvent { accepted_at: at(-60), ..event("early", 1) };
    world.publish(START + 5, &outside);
    world.publish(START + 6, &UsageEvent { accepted_at: at(30), ..outside });
    let (mut results, records, _) = world.check();
    assert!(results.findings.is_empty());
    let id = results.table.line("org_demo", at(30)).unwrap();
    assert_eq!(
        results.table.at(id).repeats,
        2,
        "the second copy is one of an event that may be billed"
    );
    assert_eq!(records.became[5], Became::Unseen);
}

#[test]
fn one_organization_can_be_looked_at_alone() {
    let mut world = World::sound();
    let other = UsageEvent { organization_id: Cow::Borrowed("other"), ..event("o", 1) };
    world.publish(START + 5, &other);
    let only = Scope { organization: Some("org_demo".to_owned()), ..scope() };
    let (results, records, _) = world.check_in(&only);
    assert!(results.findings.is_empty());
    assert_eq!(results.table.iter().count(), 1);
    assert_eq!(records.became[5], Became::Unseen);
}

#[test]
fn a_record_of_a_later_epoch_is_a_matter_of_configuration() {
    let mut results = Results {
        table: Table::new(at(0)..at(60)),
        findings: Findings::new(9),
        unreadable: Unreadable::default(),
    };
    let scope = scope();
    let mut check = PartitionCheck::new(&scope, &mut results, u64::MAX);
    let mut value = Vec::new();
    wire::encode(&event("a", 5), 3, &mut value);
    check.record(&FetchedRecord { offset: START, key: b"", value: &value });
    assert_eq!(check.later_epoch(), Some(3));
}

/// The memory ends where it was said to, whatever the store sends; how much it would take is counted on.
#[test]
fn no_more_is_kept_beside_the_range_than_there_is_room_for() {
    let mut results = Results {
        table: Table::new(at(0)..at(60)),
        findings: Findings::new(9),
        unreadable: Unreadable::default(),
    };
    let scope = scope();
    let mut check = PartitionCheck::new(&scope, &mut results, 2 * ASIDE_BYTES);
    check.parked(START);
    check.row(&row(&event("old", 1), 1, 7));
    assert_eq!(check.bytes_aside(), 2 * ASIDE_BYTES);
    check.parked(START + 1);
    check.row(&row(&event("older", 1), 1, 6));
    let other = event("c", 1);
    let organization_id = Cow::Borrowed(other.organization_id.as_ref());
    let conflict =
        StoredConflict { offset: START + 2, organization_id, accepted_at: other.accepted_at };
    check.conflict(&conflict);
    assert_eq!(check.bytes_aside(), 5 * ASIDE_BYTES);
    assert_eq!((check.parked.len(), check.conflicts.len(), check.without_log.len()), (1, 0, 1));
}
