use super::*;
use crate::dedup::PositionOrder;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn all(_: Place) -> bool {
    true
}

fn entry(hash: u128, offset: u64, fingerprint: u64) -> Entry {
    Entry::new(IdentityHash(hash.to_be_bytes()), PositionOrder::new(1).current(offset), fingerprint)
}

fn stands_in_order(table: &Table) {
    let mut last: Option<Entry> = None;
    let mut gap = None;
    for (at, entry) in table.slots.iter().enumerate() {
        if entry.is_empty() {
            gap = Some(at);
            continue;
        }
        assert!(last.is_none_or(|last| last.cmp_hash(entry) == Ordering::Less));
        let home = home(entry, table.slots.len());
        assert!(
            home <= at && gap.is_none_or(|gap| gap < home),
            "slot {at} of home {home}, last gap {gap:?}"
        );
        last = Some(*entry);
    }
}

#[test]
fn an_entry_gives_back_what_it_was_made_of() {
    let whole = entry(u128::MAX, (1 << 48) - 1, u64::MAX);
    assert_eq!(
        (whole.place(), whole.fingerprint()),
        (PositionOrder::new(1).current((1 << 48) - 1), (1 << 40) - 1)
    );
    assert_eq!((whole.shard(), whole.sort_bits()), (SHARDS - 1, u64::MAX));
    let small = entry(1 << 58, 0, 0);
    assert_eq!(
        (small.place(), small.fingerprint(), small.shard(), small.sort_bits()),
        (PositionOrder::new(1).current(0), 0, 0, 1)
    );
    assert_eq!(Entry::BYTES, 28);
    assert!(!entry(0, 0, 0).is_empty());
}

/// Hashes of one shard, some of which crowd: few different leading bits, or all of them shared.
fn crowded_hash() -> impl Strategy<Value = u128> {
    const LAST: u128 = u128::MAX >> 6;
    prop_oneof![
        0..=LAST,
        (0_u128..40).prop_map(|low| low),
        (0_u128..40).prop_map(|low| LAST - low),
        (0_u128..64).prop_map(|high| high << 116)
    ]
}

proptest! {
    #[test]
    fn a_table_is_a_map(steps in prop::collection::vec((crowded_hash(), 0_u64..1000), 1..400), forgotten in 0_u64..1000) {
        let mut table = Table::default();
        let mut model: BTreeMap<u128, Entry> = BTreeMap::new();
        for (hash, offset) in steps {
            let entry = entry(hash, offset, 7);
            prop_assert_eq!(table.find_or_insert(entry, all), model.get(&hash).copied());
            model.entry(hash).or_insert(entry);
            prop_assert_eq!(table.len(), model.len());
        }
        stands_in_order(&table);
        let keep = PositionOrder::new(1).current(forgotten)..Place::END;
        table.rebuild(|place| keep.contains(&place));
        model.retain(|_, entry| keep.contains(&entry.place()));
        stands_in_order(&table);
        prop_assert_eq!(table.entries().copied().collect::<Vec<_>>(), model.into_values().collect::<Vec<_>>());
    }
}

#[test]
fn a_hundred_hashes_that_share_a_slot_are_told_apart() {
    let mut table = Table::default();
    for low in 0..100 {
        assert_eq!(table.find_or_insert(entry(u128::MAX - low, 1, 1), all), None);
    }
    for low in 0..100 {
        assert!(table.find_or_insert(entry(u128::MAX - low, 1, 1), all).is_some());
    }
    stands_in_order(&table);
}
