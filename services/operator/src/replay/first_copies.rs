//! Which copy of an event is the first, by everything that is known before a range and within it. Pure.

use event_log::Offset;
use metering::IdentityHash;
use std::collections::HashMap;

/// Epoch and offset in one partition: an earlier one is an earlier record.
pub type Place = (u16, Offset);

/// The dedup index keeps as many bits of a fingerprint, and a conflict's row holds them.
const FINGERPRINT_MASK: u64 = (1 << 40) - 1;
/// Bytes of an entry: hash, place, fingerprint, and one of the table.
const ENTRY_BYTES: usize = 16 + 16 + 8 + 1;

#[derive(Clone, Copy, Debug)]
struct First {
    place: Place,
    fingerprint: u64,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    First,
    Repeat,
    /// It says something else than the first copy, of whose fingerprint the low 40 bits are given.
    Conflict {
        first: Place,
        first_fingerprint: u64,
    },
}

/// The first copies that are known. Nothing is forgotten.
#[derive(Debug, Default)]
pub struct FirstCopies {
    known: HashMap<IdentityHash, First>,
}

impl FirstCopies {
    /// Takes a copy from before the range, in any order.
    pub fn remember(&mut self, identity: IdentityHash, place: Place, fingerprint: u64) {
        let first = First { place, fingerprint: fingerprint & FINGERPRINT_MASK };
        let known = self.known.entry(identity).or_insert(first);
        if place < known.place {
            *known = first;
        }
    }

    /// Decides the next record of the range; the places of those before it are below its own.
    pub fn decide(&mut self, identity: IdentityHash, place: Place, fingerprint: u64) -> Decision {
        let copy = First { place, fingerprint: fingerprint & FINGERPRINT_MASK };
        let first = *self.known.entry(identity).or_insert(copy);
        debug_assert!(first.place <= place, "only what stands before the range is remembered");
        if first.place == place {
            Decision::First
        } else if first.fingerprint == copy.fingerprint {
            Decision::Repeat
        } else {
            Decision::Conflict { first: first.place, first_fingerprint: first.fingerprint }
        }
    }

    /// Memory, in bytes. It doubles for a moment when the table grows.
    pub fn bytes(&self) -> usize {
        self.known.capacity() * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_copy_is_the_first_one_whatever_the_order() {
        let id = IdentityHash([1; 16]);
        let mut copies = FirstCopies::default();
        copies.remember(id, (1, 9), 8);
        copies.remember(id, (1, 5), 7);
        copies.remember(id, (1, 6), 8);
        assert_eq!(copies.decide(id, (1, 10), 7), Decision::Repeat);
        assert_eq!(copies.decide(id, (1, 11), 7 | 1 << 40), Decision::Repeat);
        let conflict = Decision::Conflict { first: (1, 5), first_fingerprint: 7 };
        assert_eq!(copies.decide(id, (2, 0), 8), conflict);
    }

    #[test]
    fn within_the_range_the_first_record_wins() {
        let id = IdentityHash([2; 16]);
        let mut copies = FirstCopies::default();
        assert_eq!(copies.decide(id, (1, 3), 7), Decision::First);
        assert_eq!(copies.decide(id, (1, 4), 7), Decision::Repeat);
        assert_eq!(copies.decide(IdentityHash([3; 16]), (1, 5), 7), Decision::First);
    }
}
