//! One shard of the index: an exact hash table of packed entries, at most 36 bytes for each one it holds.
//!
//! The entries stand in the order of their hashes, each at or after the slot its hash points to, and
//! without a gap between the two. So a look-up stops at the first larger hash, growth is one
//! sequential pass, the length need not be a power of two, and forgetting leaves no tombstones.

use super::Place;
use metering::IdentityHash;
use std::cmp::Ordering;

/// Tables that make an index. Only one is copied at a time when the index grows.
pub(super) const SHARDS: usize = 64;

/// Low bits of a payload fingerprint that are kept. The fingerprint only tells a duplicate from a
/// conflict, and neither is billed; 40 bits take one conflict in 10¹² for a duplicate.
const FINGERPRINT_BYTES: usize = 5;

/// Filled to more than this many slots of 100, a table grows.
const LOAD_MAX_PERCENT: usize = 88;
/// Filled to this many slots of 100 after it has grown: 28 / 0.78 makes 36 bytes for each entry.
const LOAD_GROWN_PERCENT: usize = 78;

/// What is remembered of the first copy of an event: hash (128 bits), place (56), fingerprint (40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry([u32; 7]);

impl Entry {
    /// The place of an entry is above zero, so no entry looks like this, and fresh memory needs no writing.
    const EMPTY: Self = Self([0; 7]);
    pub(super) const BYTES: usize = size_of::<Self>();

    pub(super) fn new(hash: IdentityHash, place: Place, fingerprint: u64) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&hash.0);
        bytes[16..23].copy_from_slice(&place.get().to_be_bytes()[1..]);
        bytes[23..].copy_from_slice(&fingerprint.to_be_bytes()[8 - FINGERPRINT_BYTES..]);
        let mut words = [0; 7];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Self(words)
    }

    pub(super) fn place(&self) -> Place {
        Place::from_bits((u64::from(self.0[4]) << 24) | u64::from(self.0[5] >> 8))
    }

    /// The low 40 bits of the fingerprint.
    pub(super) fn fingerprint(&self) -> u64 {
        (u64::from(self.0[5] & 0xff) << 32) | u64::from(self.0[6])
    }

    /// The table an entry belongs to, below [`SHARDS`].
    pub(super) fn shard(&self) -> usize {
        usize::from(self.0[0].to_be_bytes()[0] >> 2)
    }

    fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    fn cmp_hash(&self, other: &Self) -> Ordering {
        self.0[..4].cmp(&other.0[..4])
    }

    /// Bits 6 to 70 of the hash; those before them have chosen the shard.
    fn sort_bits(&self) -> u64 {
        (u64::from(self.0[0] & 0x03ff_ffff) << 38)
            | (u64::from(self.0[1]) << 6)
            | u64::from(self.0[2] >> 26)
    }
}

/// An exact table of entries with different hashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slots: Box<[Entry]>,
    len: usize,
}

/// Where an entry is, or would have to be.
enum Slot {
    Taken(usize),
    Free(usize),
}

impl Table {
    /// The slots, and with them the memory, that a table of `entries` has after it was filled at once.
    pub(super) fn slots_for(entries: usize) -> usize {
        slots_for(entries.saturating_add(1))
    }

    /// Arranges entries that are in no order; of several of one event, the earliest stays. Works
    /// within the memory of `entries` when that is as many slots as the table needs.
    pub(super) fn from_unordered(mut entries: Vec<Entry>) -> Self {
        sort_distinct(&mut entries);
        let len = entries.len();
        let mut slots = Self::slots_for(len);
        let mut places = Vec::with_capacity(len);
        while !arrange(&entries, slots, &mut places) {
            slots = larger(slots);
        }
        entries.reserve_exact(slots - len);
        entries.resize(slots, Entry::EMPTY);
        // Backwards: an entry never stands before its rank, so none is overwritten before it has moved.
        for (rank, place) in places.iter().enumerate().rev().filter(|(rank, place)| rank != *place)
        {
            entries.swap(rank, *place);
        }
        Self { slots: entries.into_boxed_slice(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the slots, empty ones included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.slots.len() * Entry::BYTES
    }

    /// The entry with the hash of `entry`; when there is none, `entry` is added.
    ///
    /// Entries at places that are not to be kept may be dropped when the table has to grow.
    pub(super) fn find_or_insert(
        &mut self,
        entry: Entry,
        keep: impl Fn(Place) -> bool + Copy,
    ) -> Option<Entry> {
        match self.find(&entry) {
            Slot::Taken(at) => return Some(self.slots[at]),
            Slot::Free(at)
                if (self.len + 1) * 100 <= self.slots.len() * LOAD_MAX_PERCENT
                    && self.insert_at(at, entry) =>
            {
                return None;
            }
            Slot::Free(_) => self.rebuild(keep),
        }
        loop {
            match self.find(&entry) {
                Slot::Free(at) if self.insert_at(at, entry) => return None,
                _ => self.rebuild_with(keep, larger(self.slots.len())),
            }
        }
    }

    /// Drops the entries at places that are not to be kept, and fits the memory to what stays.
    pub(super) fn rebuild(&mut self, keep: impl Fn(Place) -> bool + Copy) {
        let kept = self.entries().filter(|entry| keep(entry.place())).count();
        self.rebuild_with(keep, slots_for(kept + 1));
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter(|entry| !entry.is_empty())
    }

    fn find(&self, wanted: &Entry) -> Slot {
        let start = home(wanted, self.slots.len());
        for (at, entry) in self.slots.iter().enumerate().skip(start) {
            if entry.is_empty() {
                return Slot::Free(at);
            }
            match entry.cmp_hash(wanted) {
                Ordering::Less => {}
                Ordering::Equal => return Slot::Taken(at),
                Ordering::Greater => return Slot::Free(at),
            }
        }
        Slot::Free(self.slots.len())
    }

    /// Adds `entry` where it belongs; `false` when there is no empty slot behind.
    fn insert_at(&mut self, at: usize, entry: Entry) -> bool {
        let Some(run) = self.slots[at..].iter().position(Entry::is_empty) else { return false };
        self.slots.copy_within(at..at + run, at + 1);
        self.slots[at] = entry;
        self.len += 1;
        true
    }

    /// Moves the entries that are to be kept to at least `slots` new slots, in one pass over both.
    fn rebuild_with(&mut self, keep: impl Fn(Place) -> bool + Copy, mut slots: usize) {
        loop {
            if let Some(table) = self.moved(keep, slots) {
                *self = table;
                return;
            }
            slots = larger(slots);
        }
    }

    /// `None` when the last entries would fall off the end.
    fn moved(&self, keep: impl Fn(Place) -> bool + Copy, slots: usize) -> Option<Self> {
        let mut moved = vec![Entry::EMPTY; slots].into_boxed_slice();
        let mut next = 0;
        let mut len = 0;
        for entry in self.entries().filter(|entry| keep(entry.place())) {
            let at = next.max(home(entry, slots));
            *moved.get_mut(at)? = *entry;
            next = at + 1;
            len += 1;
        }
        Some(Self { slots: moved, len })
    }
}

/// Puts entries into the order of their hashes, and drops all but the earliest of each.
pub(super) fn sort_distinct(entries: &mut Vec<Entry>) {
    entries.sort_unstable_by(|one, other| {
        one.sort_bits().cmp(&other.sort_bits()).then_with(|| one.0.cmp(&other.0))
    });
    entries.dedup_by(|later, earlier| later.cmp_hash(earlier) == Ordering::Equal);
}

/// Notes the slot of each of `entries`, which are in order; `false` when the last fall off the end.
fn arrange(entries: &[Entry], slots: usize, places: &mut Vec<usize>) -> bool {
    places.clear();
    let mut next = 0;
    for entry in entries {
        let at = next.max(home(entry, slots));
        places.push(at);
        next = at + 1;
    }
    next <= slots
}

fn slots_for(entries: usize) -> usize {
    entries.saturating_mul(100).div_ceil(LOAD_GROWN_PERCENT) + 8
}

fn larger(slots: usize) -> usize {
    slots + slots / 8 + 8
}

/// The slot a hash points to. The last slots are left to entries that are pushed off their own.
fn home(entry: &Entry, slots: usize) -> usize {
    let homes = slots.saturating_sub(8 + slots / 64);
    let homes = u64::try_from(homes).expect("a length fits 64 bits");
    let scaled = (u128::from(entry.sort_bits()) * u128::from(homes)) >> 64;
    usize::try_from(scaled).expect("the product is below the length")
}

#[cfg(test)]
mod tests;
