use super::*;
use chrono::TimeDelta;
use proptest::prelude::*;
use std::collections::HashMap;

fn order() -> PositionOrder {
    PositionOrder::new(3)
}

fn at(hours: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::hours(hours)
}

fn copy(id: u64, offset: Offset, fingerprint: u64) -> Copy {
    let hash = metering::identity::identity_hash(&id.to_le_bytes());
    Copy {
        hash,
        place: order().current(offset),
        fingerprint,
        accepted_at: at(0),
        decided_at: at(0),
    }
}

/// The first copy of an event that is accepted and decided at an hour.
fn decided_at_hour(hours: i64, offset: Offset) -> Copy {
    Copy { accepted_at: at(hours), decided_at: at(hours), ..copy(offset, offset, 0) }
}

#[test]
fn each_relation_of_two_copies_has_its_verdict() {
    let mut index = PartitionIndex::new(order());
    assert_eq!(index.decide(&copy(1, 10, 5)), Verdict::First);
    assert_eq!(index.decide(&copy(1, 10, 5)), Verdict::Replay);
    assert_eq!(index.decide(&copy(1, 11, 5)), Verdict::Duplicate);
    assert_eq!(
        index.decide(&copy(1, 11, 6)),
        Verdict::Conflict { first: order().current(10), first_fingerprint: 5 }
    );
    assert_eq!(index.decide(&copy(1, 9, 5)), Verdict::Impossible { known: order().current(10) });
    assert_eq!(index.decide(&copy(1, 10, 6)), Verdict::Impossible { known: order().current(10) });
    assert_eq!(index.len(), 1, "no later copy takes the place of the first");
}

#[test]
fn ids_are_forgotten_past_the_horizon_only_and_memory_is_given_back() {
    let mut index = PartitionIndex::new(order());
    for offset in 0..5000 {
        let hours = i64::try_from(offset / 100).unwrap();
        index.decide(&decided_at_hour(hours, offset));
    }
    let full = index.allocated_bytes();
    index.forget_before(at(40));
    index.sweep();
    assert_eq!(index.len(), 1000);
    assert!(index.allocated_bytes() < full / 2, "{} of {full}", index.allocated_bytes());
    assert_eq!(index.decide(&copy(4000, 6000, 0)), Verdict::Duplicate);
    assert_eq!(index.decide(&copy(3999, 6001, 0)), Verdict::First);
}

#[test]
fn the_horizon_ends_at_the_copy_that_was_decided_last() {
    let horizon = Duration::from_secs(10 * 3600);
    let mut index = PartitionIndex::new(order());
    for offset in 0..20 {
        index.decide(&copy(offset, offset, 0));
    }
    index.cut_back(20..20);
    index.forget_beyond(horizon);
    index.sweep();
    assert_eq!(index.len(), 20, "nothing was decided since the cut");
    // However long the consumer was away, the copies of now come first.
    for (hours, offset) in [(0, 20), (9, 21), (18, 22)] {
        index.decide(&decided_at_hour(hours, offset));
    }
    index.forget_beyond(horizon);
    index.sweep();
    assert_eq!(index.len(), 2, "the ids of hours 9 and 18");
    index.cut_back(22..23);
    index.forget_beyond(Duration::ZERO);
    index.sweep();
    assert_eq!(index.len(), 1, "the copy of hour 18 counts no more");
}

#[test]
fn growth_forgets_what_was_let_go() {
    let mut index = PartitionIndex::new(order());
    for offset in 0..200_000 {
        let hours = i64::try_from(offset / 1000).unwrap();
        index.decide(&decided_at_hour(hours, offset));
        if offset % 1000 == 0 {
            index.forget_before(at(hours - 10));
        }
    }
    assert!((11_000..20_000).contains(&index.len()), "{} ids for a horizon of 11,000", index.len());
}

#[test]
fn records_cannot_be_decided_once_more_after_ids_were_let_go_for_a_later_one() {
    let horizon = Duration::from_secs(10 * 3600);
    let mut index = PartitionIndex::new(order());
    for (hours, offset) in [(0, 0), (5, 1), (9, 2), (30, 3), (31, 4)] {
        index.decide(&decided_at_hour(hours, offset));
        if offset == 3 {
            assert!(index.can_be_cut_back(0));
            index.forget_beyond(horizon);
        }
    }
    // The record at offset 2 may be a copy of those at 0 and 1, which the one at 3 is too late for.
    assert_eq!([2, 3, 4, 5].map(|next| index.can_be_cut_back(next)), [false, false, true, true]);
}

#[test]
fn what_the_store_has_told_of_later_records_survives_a_cut() {
    let mut index = PartitionIndex::new(order());
    for offset in [0, 1, 2, 7] {
        index.decide(&copy(offset, offset, 0));
    }
    index.cut_back(1..3);
    assert_eq!(index.len(), 2);
    assert_eq!(index.decide(&copy(2, 1, 0)), Verdict::First);
    let known = order().current(7);
    assert_eq!(index.decide(&copy(7, 2, 0)), Verdict::Impossible { known });
}

#[test]
fn a_cut_back_index_has_not_seen_the_records_behind_the_cut() {
    let mut index = PartitionIndex::new(order());
    for offset in 0..1000 {
        index.decide(&decided_at_hour(i64::try_from(offset).unwrap(), offset));
    }
    index.forget_before(at(500));
    index.cut_back(200..1000);
    for offset in 200..1000 {
        assert_eq!(
            index.decide(&decided_at_hour(i64::try_from(offset).unwrap(), offset)),
            Verdict::First
        );
    }
    index.sweep();
    assert_eq!(
        index.decide(&copy(200, 2000, 0)),
        Verdict::Duplicate,
        "what is read again is remembered again"
    );
}

/// The promise of docs/dedup-index.md: at most 40 bytes for each id, at any fill.
#[test]
fn an_id_takes_at_most_forty_bytes() {
    let mut index = PartitionIndex::new(order());
    let mut worst = 0;
    for id in 0..1_500_000_u64 {
        index.decide(&copy(id, id, id));
        if id >= 10_000 && id % 500 == 0 {
            let bytes_per_1000 = index.allocated_bytes() * 1000 / index.len();
            assert!(bytes_per_1000 <= 40_000, "{bytes_per_1000} bytes for 1000 ids at {id}");
            worst = worst.max(bytes_per_1000);
        }
    }
    println!("at most {worst} bytes for 1000 ids");
}

proptest! {
    /// The index against a hash map, over any order of copies, forgetting and cutting back.
    #[test]
    fn an_index_agrees_with_a_map(steps in prop::collection::vec((0_u64..300, 0_u64..3, 0_u8..100), 1..600)) {
        let mut index = PartitionIndex::new(order());
        let mut model: HashMap<u64, (Offset, u64)> = HashMap::new();
        let mut offset = 0;
        for (id, fingerprint, dice) in steps {
            if dice < 2 {
                let next = offset;
                offset = offset * u64::from(dice) / 2 + offset / 3;
                index.cut_back(offset..next);
                model.retain(|_, (place, _)| *place < offset);
            } else if dice < 5 {
                index.sweep();
            }
            let expected = match model.get(&id) {
                None => Verdict::First,
                Some((_, known)) if *known == fingerprint => Verdict::Duplicate,
                Some((first, known)) => Verdict::Conflict { first: order().current(*first), first_fingerprint: *known },
            };
            prop_assert_eq!(index.decide(&copy(id, offset, fingerprint)), expected);
            if dice % 4 == 0 && expected == Verdict::First {
                prop_assert_eq!(index.decide(&copy(id, offset, fingerprint)), Verdict::Replay);
            }
            model.entry(id).or_insert((offset, fingerprint));
            prop_assert_eq!(index.len(), model.len());
            offset += 1;
        }
    }
}
