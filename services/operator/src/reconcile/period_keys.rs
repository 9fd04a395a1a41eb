//! The keys of a period's rows, and which of them came again with another place. Pure.

use std::ops::RangeInclusive;
use usage_store::Position;

/// Bytes of a row, at most: its key, its place, a bit that says whether the key came again, and a part of the
/// index.
pub const KEY_BYTES: u64 = 17;
/// Keys that a step of the index has on average, at least.
const STEP_KEYS: usize = 16;
/// The place of all rows whose places do not fit: it is taken for another one each time.
const SOMEWHERE: u64 = u64::MAX;

/// Rows with keys of one range. First all are pushed, then they are sorted, then other keys are met.
#[derive(Debug)]
pub struct PeriodKeys {
    range: RangeInclusive<u64>,
    room: usize,
    overfull: bool,
    /// Key and place; once they are sorted, each key once.
    rows: Vec<(u64, u64)>,
    /// Where the keys of each step of the range begin, and where those of the last one end.
    steps: Vec<u32>,
    /// The width of a step is two to the power of this.
    shift: u32,
    /// A bit for each key.
    again: Vec<u64>,
}

/// Ranges that together are all keys. Of `rows` keys that are spread evenly, as hashes are, each has a
/// sixteenth less than `room`.
pub fn ranges(rows: u64, room: usize) -> Vec<RangeInclusive<u64>> {
    let room = u64::try_from(room).unwrap_or(u64::MAX);
    let count = rows.div_ceil(room - room / 16).max(1);
    let width = u64::MAX / count;
    let last = |number| if number + 1 == count { u64::MAX } else { (number + 1) * width - 1 };
    (0..count).map(|number| number * width..=last(number)).collect()
}

/// Both halves of a range, unless it is a single key.
pub fn halves(range: &RangeInclusive<u64>) -> Option<[RangeInclusive<u64>; 2]> {
    let (first, last) = (*range.start(), *range.end());
    let middle = first + (last - first) / 2;
    (first < last).then(|| [first..=middle, middle + 1..=last])
}

impl PeriodKeys {
    /// With room for `room` rows with keys of `range`, at least two, and at most the 4 billion that an index
    /// can count.
    pub fn new(range: RangeInclusive<u64>, room: usize) -> Self {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        let room = room.clamp(2, most);
        let rows = Vec::with_capacity(room);
        Self { range, room, overfull: false, rows, steps: Vec::new(), shift: 0, again: Vec::new() }
    }

    pub fn push(&mut self, key: u64, position: Position) {
        assert!(self.range.contains(&key), "only keys of the range are asked for");
        if self.rows.len() < self.room {
            self.rows.push((key, packed(position)));
        } else {
            self.overfull = true;
        }
    }

    /// Whether some rows were not kept. Of a range of a single key none needs to be: that they are many is
    /// all there is to know.
    pub fn is_overfull(&self) -> bool {
        self.overfull && self.range.start() < self.range.end()
    }

    /// Finds the keys that were pushed with several places, and makes ready for [`Self::meet`].
    pub fn sort(&mut self) {
        self.rows.sort_unstable();
        self.again = vec![0; self.rows.len().div_ceil(64)];
        let mut kept = 0;
        for at in 0..self.rows.len() {
            let (key, place) = self.rows[at];
            let before = if kept > 0 { Some(self.rows[kept - 1]) } else { None };
            match before.filter(|(known, _)| *known == key) {
                Some((_, known)) if known == place && place != SOMEWHERE && !self.overfull => {}
                Some(_) => self.again[(kept - 1) / 64] |= bit(kept - 1),
                None => {
                    self.rows[kept] = (key, place);
                    kept += 1;
                }
            }
        }
        self.rows.truncate(kept);
        self.index();
    }

    fn index(&mut self) {
        let span = self.range.end() - self.range.start();
        let most = u64::try_from(self.rows.len() / STEP_KEYS + 2).unwrap_or(u64::MAX);
        self.shift = (0..u64::BITS).find(|shift| span >> shift < most).expect("two steps suffice");
        let count = self.step_of(*self.range.end()) + 1;
        let mut steps = Vec::with_capacity(count + 1);
        for (at, (key, _)) in self.rows.iter().enumerate() {
            let step = self.step_of(*key);
            if steps.len() <= step {
                steps.resize(step + 1, number(at));
            }
        }
        steps.resize(count + 1, number(self.rows.len()));
        self.steps = steps;
    }

    /// Takes a key of another row. After [`Self::sort`].
    pub fn meet(&mut self, key: u64) {
        assert!(self.range.contains(&key), "only keys of the range are asked for");
        let step = self.step_of(key);
        let begin = place(self.steps[step]);
        let rows = &self.rows[begin..place(self.steps[step + 1])];
        if let Ok(at) = rows.binary_search_by_key(&key, |(key, _)| *key) {
            self.again[(begin + at) / 64] |= bit(begin + at);
        }
    }

    /// The keys that were pushed with several places or met, each once.
    pub fn came_again(&self) -> impl Iterator<Item = u64> {
        let came_again = |at: usize| self.again[at / 64] & bit(at) != 0;
        self.rows
            .iter()
            .enumerate()
            .filter(move |(at, _)| came_again(*at))
            .map(|(_, (key, _))| *key)
    }

    fn step_of(&self, key: u64) -> usize {
        usize::try_from((key - self.range.start()) >> self.shift).expect("there are few steps")
    }
}

/// A place in 64 bits: 8 of the epoch, 16 of the partition and 40 of the offset.
fn packed(position: Position) -> u64 {
    let Position { epoch, partition, offset } = position;
    if epoch >= 1 << 8 || offset >= 1 << 40 {
        return SOMEWHERE;
    }
    u64::from(epoch) << 56 | u64::from(partition) << 40 | offset
}

fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("the room bounds the keys")
}

fn place(at: u32) -> usize {
    usize::try_from(at).expect("addresses have 32 bits at least")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn position(place: u8) -> Position {
        // Some that do not fit, and some that differ in one number only.
        let epoch = if place == 7 { 256 } else { u16::from(place % 2) };
        let offset = if place == 6 { 1 << 40 } else { u64::from(place / 4) };
        Position { epoch, partition: u16::from(place / 2 % 2), offset }
    }

    /// What a search finds whose room is `room`.
    fn search(rows: &[(u64, u8)], others: &[u64], room: usize) -> Vec<u64> {
        let count = u64::try_from(rows.len()).unwrap();
        let (mut left, mut found) = (ranges(count, room), Vec::new());
        while let Some(range) = left.pop() {
            let mut keys = PeriodKeys::new(range.clone(), room);
            for (key, place) in rows.iter().filter(|(key, _)| range.contains(key)) {
                keys.push(*key, position(*place));
            }
            if keys.is_overfull() {
                left.extend(halves(&range).unwrap());
                continue;
            }
            keys.sort();
            others.iter().filter(|key| range.contains(key)).for_each(|key| keys.meet(*key));
            found.extend(keys.came_again());
        }
        found.sort_unstable();
        found
    }

    /// Keys that meet often: near the ends, near each other, or anywhere.
    fn key() -> impl Strategy<Value = u64> {
        prop_oneof![
            0_u64..40,
            (0_u64..40).prop_map(|key| u64::MAX - key),
            (0_u64..40).prop_map(|key| key << 58),
            (0_u64..40).prop_map(|key| (1 << 63) + key - 20),
            any::<u64>(),
        ]
    }

    proptest! {
        #[test]
        fn whatever_came_again_is_found_with_any_room(
            rows in prop::collection::vec((key(), 0_u8..8), 0..300),
            others in prop::collection::vec(key(), 0..300),
            room in 2_usize..400,
        ) {
            let found = search(&rows, &others, room);
            let places_of = |key: u64| rows.iter().filter(move |row| row.0 == key).map(|row| row.1);
            let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
            for (key, _) in &rows {
                let places: BTreeSet<_> = places_of(*key).collect();
                if places.len() > 1 || others.contains(key) {
                    must.insert(*key);
                } else if places_of(*key).count() > room || places.iter().any(|place| *place >= 6) {
                    // Too many copies to keep, or places that do not fit.
                    may.insert(*key);
                }
            }
            prop_assert!(found.is_sorted_by(|a, b| a < b), "each once");
            let found: BTreeSet<_> = found.into_iter().collect();
            prop_assert!(must.is_subset(&found), "{:?} and not {:?}", found, must);
            prop_assert!(found.is_subset(&(&must | &may)), "{:?} and not {:?}", found, must);
        }

        #[test]
        fn ranges_are_all_keys_without_gap_or_overlap(rows in 0_u64..100_000, room in 2_usize..5000) {
            let ranges = ranges(rows, room);
            prop_assert_eq!((*ranges[0].start(), *ranges[ranges.len() - 1].end()), (0, u64::MAX));
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end() + 1, *pair[1].start());
            }
        }
    }

    #[test]
    fn a_range_is_full_with_its_room_and_overfull_with_one_more() {
        let mut keys = PeriodKeys::new(0..=u64::MAX, 3);
        (0..3).for_each(|key| keys.push(key, position(0)));
        assert!(!keys.is_overfull());
        keys.push(3, position(0));
        assert!(keys.is_overfull());
        let [low, high] = halves(&(0..=u64::MAX)).unwrap();
        assert_eq!((*low.end(), *high.start()), (u64::MAX / 2, u64::MAX / 2 + 1));
        // One key cannot be divided, and what was not kept of it may have another place.
        for (rows, found) in [(2, vec![]), (3, vec![7])] {
            let mut one = PeriodKeys::new(7..=7, 2);
            (0..rows).for_each(|_| one.push(7, position(0)));
            assert!(!one.is_overfull());
            one.sort();
            assert_eq!(one.came_again().collect::<Vec<_>>(), found, "{rows}");
        }
        assert_eq!(halves(&(7..=7)), None);
    }

    #[test]
    fn the_bytes_of_a_row_are_those_that_are_counted() {
        let mut keys = PeriodKeys::new(0..=u64::MAX, 100_000);
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..100_000).for_each(|number| keys.push(key(number), position(0)));
        keys.sort();
        let bytes = keys.rows.capacity() * 16 + keys.steps.capacity() * 4 + keys.again.len() * 8;
        assert!(u64::try_from(bytes).unwrap() <= 100_000 * KEY_BYTES, "{bytes}");
    }
}
