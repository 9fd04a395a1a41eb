//! The keys of a period's billable rows, and which of them came again. Pure.

use std::ops::RangeInclusive;

/// Bytes of a key, at most: itself, a bit that says whether it came again, and its part of the index.
pub const KEY_BYTES: u64 = 9;
/// Keys that a step of the index has on average, at least: as many as two cache lines hold.
const STEP_KEYS: usize = 16;

/// Keys of one range. First all are pushed, then they are sorted, then others are met.
#[derive(Debug)]
pub struct BilledKeys {
    range: RangeInclusive<u64>,
    room: usize,
    overfull: bool,
    keys: Vec<u64>,
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

impl BilledKeys {
    /// With room for `room` keys of `range`, at least two, and at most the 4 billion that an index can count.
    pub fn new(range: RangeInclusive<u64>, room: usize) -> Self {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        let room = room.clamp(2, most);
        let keys = Vec::with_capacity(room);
        Self { range, room, overfull: false, keys, steps: Vec::new(), shift: 0, again: Vec::new() }
    }

    pub fn push(&mut self, key: u64) {
        assert!(self.range.contains(&key), "only keys of the range are asked for");
        if self.keys.len() < self.room {
            self.keys.push(key);
        } else {
            self.overfull = true;
        }
    }

    /// Whether some keys were not kept. A range of a single key never lacks anything: that it came again is
    /// all there is to know.
    pub fn is_overfull(&self) -> bool {
        self.overfull && self.range.start() < self.range.end()
    }

    /// Finds the keys that were pushed repeatedly, and makes ready for [`Self::meet`].
    pub fn sort(&mut self) {
        self.keys.sort_unstable();
        self.again = vec![0; self.keys.len().div_ceil(64)];
        let mut kept = 0;
        for at in 0..self.keys.len() {
            let key = self.keys[at];
            if kept > 0 && self.keys[kept - 1] == key {
                self.again[(kept - 1) / 64] |= bit(kept - 1);
            } else {
                self.keys[kept] = key;
                kept += 1;
            }
        }
        self.keys.truncate(kept);
        self.index();
    }

    fn index(&mut self) {
        let span = self.range.end() - self.range.start();
        let most = u64::try_from(self.keys.len() / STEP_KEYS + 2).unwrap_or(u64::MAX);
        self.shift = (0..u64::BITS).find(|shift| span >> shift < most).expect("two steps suffice");
        let count = self.step_of(*self.range.end()) + 1;
        let mut steps = Vec::with_capacity(count + 1);
        for (at, key) in self.keys.iter().enumerate() {
            let step = self.step_of(*key);
            if steps.len() <= step {
                steps.resize(step + 1, number(at));
            }
        }
        steps.resize(count + 1, number(self.keys.len()));
        self.steps = steps;
    }

    /// Takes a key of another row. After [`Self::sort`].
    pub fn meet(&mut self, key: u64) {
        assert!(self.range.contains(&key), "only keys of the range are asked for");
        let step = self.step_of(key);
        let begin = place(self.steps[step]);
        let keys = &self.keys[begin..place(self.steps[step + 1])];
        if let Ok(at) = keys.binary_search(&key) {
            self.again[(begin + at) / 64] |= bit(begin + at);
        }
    }

    /// The keys that were pushed repeatedly or met, each once.
    pub fn came_again(&self) -> impl Iterator<Item = u64> {
        let came_again = |at: usize| self.again[at / 64] & bit(at) != 0;
        self.keys.iter().enumerate().filter(move |(at, _)| came_again(*at)).map(|(_, key)| *key)
    }

    fn step_of(&self, key: u64) -> usize {
        usize::try_from((key - self.range.start()) >> self.shift).expect("there are few steps")
    }
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

    /// What a search finds whose room is `room`.
    fn search(billed: &[u64], others: &[u64], room: usize) -> Vec<u64> {
        let rows = u64::try_from(billed.len()).unwrap();
        let (mut left, mut found) = (ranges(rows, room), Vec::new());
        while let Some(range) = left.pop() {
            let of_range = |keys: &[u64]| {
                keys.iter().copied().filter(|key| range.contains(key)).collect::<Vec<_>>()
            };
            let mut keys = BilledKeys::new(range.clone(), room);
            of_range(billed).into_iter().for_each(|key| keys.push(key));
            if keys.is_overfull() {
                left.extend(halves(&range).unwrap());
                continue;
            }
            keys.sort();
            of_range(others).into_iter().for_each(|key| keys.meet(key));
            assert!(keys.steps.len() <= keys.keys.len() / STEP_KEYS + 3, "its bytes are counted");
            found.extend(keys.came_again());
        }
        found.sort_unstable();
        found
    }

    /// Keys that meet often: near the ends, near each other, or anywhere.
    fn keys() -> impl Strategy<Value = Vec<u64>> {
        let key = prop_oneof![
            0_u64..40,
            (0_u64..40).prop_map(|key| u64::MAX - key),
            (0_u64..40).prop_map(|key| key << 58),
            (0_u64..40).prop_map(|key| (1 << 63) + key - 20),
            any::<u64>(),
        ];
        prop::collection::vec(key, 0..300)
    }

    proptest! {
        #[test]
        fn whatever_came_again_is_found_with_any_room(billed in keys(), others in keys(), room in 2_usize..400) {
            let others_set: BTreeSet<_> = others.iter().collect();
            let mut sorted = billed.clone();
            sorted.sort_unstable();
            let mut expected: Vec<_> =
                sorted.chunk_by(|a, b| a == b).filter(|same| same.len() > 1 || others_set.contains(&same[0])).map(|same| same[0]).collect();
            expected.dedup();
            prop_assert_eq!(search(&billed, &others, room), expected);
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
        let mut keys = BilledKeys::new(0..=u64::MAX, 3);
        (0..3).for_each(|key| keys.push(key));
        assert!(!keys.is_overfull());
        keys.push(3);
        assert!(keys.is_overfull());
        let [low, high] = halves(&(0..=u64::MAX)).unwrap();
        assert_eq!((*low.end(), *high.start()), (u64::MAX / 2, u64::MAX / 2 + 1));
        // One key, more often than there is room: it cannot be divided, and need not be.
        let mut one = BilledKeys::new(7..=7, 2);
        (0..9).for_each(|_| one.push(7));
        assert!(!one.is_overfull());
        assert_eq!(halves(&(7..=7)), None);
        one.sort();
        assert_eq!(one.came_again().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn the_bytes_of_a_key_are_those_that_are_counted() {
        let mut keys = BilledKeys::new(0..=u64::MAX, 100_000);
        (0..100_000_u64).for_each(|key| keys.push(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        keys.sort();
        let bytes = keys.keys.capacity() * 8 + keys.steps.capacity() * 4 + keys.again.len() * 8;
        assert!(u64::try_from(bytes).unwrap() <= 100_000 * KEY_BYTES, "{bytes}");
    }
}
