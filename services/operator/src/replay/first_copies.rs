//! Which copy of an event is the first, by everything that is known before a range and within it. Pure.

use chrono::{DateTime, Utc};
use event_log::Offset;
use metering::IdentityHash;
use std::collections::HashMap;
use std::time::Duration;

/// Epoch and offset in one partition: an earlier one is an earlier record.
pub type Place = (u16, Offset);

/// The dedup index keeps as many bits of a fingerprint, and a conflict's row holds them.
const FINGERPRINT_MASK: u64 = (1 << 40) - 1;
/// Bytes of an entry: hash, place, fingerprint, acceptance, and one of the table.
const ENTRY_BYTES: usize = 16 + 16 + 8 + 8 + 1;

/// One copy of an event.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub identity: IdentityHash,
    pub place: Place,
    pub fingerprint: u64,
    pub accepted_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    place: Place,
    fingerprint: u64,
    /// Milliseconds since 1970.
    accepted_at: i64,
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

/// What copies are that were accepted more than the dedup horizon after the first one. The consumer may
/// have forgotten that one and billed the copy; only the audit knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateCopies {
    AreRepeats,
    AreEvents,
}

/// The first copies that are known. Nothing is forgotten.
#[derive(Debug)]
pub struct FirstCopies {
    horizon_ms: i64,
    known: HashMap<IdentityHash, First>,
    /// Late copies that were decided since [`Self::begin`], and what they have replaced.
    late: u64,
    replaced: Vec<(IdentityHash, First)>,
}

impl FirstCopies {
    pub fn new(horizon: Duration) -> Self {
        let horizon_ms = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX);
        Self { horizon_ms, known: HashMap::new(), late: 0, replaced: Vec::new() }
    }

    /// Takes a stored event from before the range, in any order. Of an id that was used again the last
    /// use counts, as for the consumer.
    pub fn remember_stored(&mut self, copy: &Copy) {
        let first = First::of(copy);
        let known = self.known.entry(copy.identity).or_insert(first);
        if known.place < first.place {
            *known = first;
        }
    }

    /// Takes a record from before the range, in the order of the log: it counts if the store has none.
    pub fn remember_record(&mut self, copy: &Copy) {
        self.known.entry(copy.identity).or_insert_with(|| First::of(copy));
    }

    /// From here on [`Self::undo`] takes back that late copies were events.
    pub fn begin(&mut self) {
        self.late = 0;
        self.replaced.clear();
    }

    pub fn undo(&mut self) {
        for (identity, first) in self.replaced.drain(..).rev() {
            self.known.insert(identity, first);
        }
    }

    /// Late copies since [`Self::begin`].
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Decides the next record of the range, or one of it once more.
    pub fn decide(&mut self, copy: &Copy, late: LateCopies) -> Decision {
        let own = First::of(copy);
        let known = self.known.entry(copy.identity).or_insert(own);
        debug_assert!(known.place <= own.place, "only what stands before the range is remembered");
        if known.place == own.place {
            return Decision::First;
        }
        if own.accepted_at.saturating_sub(known.accepted_at) > self.horizon_ms {
            self.late += 1;
            if late == LateCopies::AreEvents {
                self.replaced.push((copy.identity, *known));
                *known = own;
                return Decision::First;
            }
        }
        if known.fingerprint == own.fingerprint {
            return Decision::Repeat;
        }
        Decision::Conflict { first: known.place, first_fingerprint: known.fingerprint }
    }

    /// Memory, in bytes. It doubles for a moment when the table grows.
    pub fn bytes(&self) -> usize {
        self.known.capacity() * ENTRY_BYTES
    }
}

impl First {
    fn of(copy: &Copy) -> Self {
        Self {
            place: copy.place,
            fingerprint: copy.fingerprint & FINGERPRINT_MASK,
            accepted_at: copy.accepted_at.timestamp_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(identity: u8, place: Place, fingerprint: u64, day: i64) -> Copy {
        let accepted_at = DateTime::from_timestamp(day * 86_400, 0).unwrap();
        Copy { identity: IdentityHash([identity; 16]), place, fingerprint, accepted_at }
    }

    fn copies() -> FirstCopies {
        FirstCopies::new(Duration::from_secs(35 * 86_400))
    }

    const REPEATS: LateCopies = LateCopies::AreRepeats;

    #[test]
    fn what_is_known_from_before_the_range_decides() {
        let mut copies = copies();
        copies.remember_stored(&copy(1, (1, 5), 7, 0));
        copies.remember_record(&copy(1, (1, 4), 8, 0));
        copies.remember_record(&copy(2, (1, 6), 9, 0));
        copies.remember_record(&copy(2, (1, 7), 10, 0));
        assert_eq!(copies.decide(&copy(1, (1, 10), 7, 0), REPEATS), Decision::Repeat);
        assert_eq!(copies.decide(&copy(1, (1, 11), 7 | 1 << 40, 0), REPEATS), Decision::Repeat);
        let conflict = Decision::Conflict { first: (1, 6), first_fingerprint: 9 };
        assert_eq!(copies.decide(&copy(2, (2, 0), 10, 0), REPEATS), conflict);
    }

    #[test]
    fn within_the_range_the_first_record_wins_and_deciding_again_changes_nothing() {
        let mut copies = copies();
        for _ in 0..2 {
            assert_eq!(copies.decide(&copy(1, (1, 3), 7, 0), REPEATS), Decision::First);
            assert_eq!(copies.decide(&copy(1, (1, 4), 7, 0), REPEATS), Decision::Repeat);
            assert_eq!(copies.decide(&copy(3, (1, 5), 7, 0), REPEATS), Decision::First);
        }
    }

    #[test]
    fn late_copies_are_what_they_are_said_to_be_and_that_can_be_undone() {
        let mut copies = copies();
        copies.remember_stored(&copy(1, (1, 1), 7, 0));
        assert_eq!(copies.decide(&copy(1, (1, 10), 7, 35), REPEATS), Decision::Repeat);
        assert_eq!(copies.late(), 0);
        assert_eq!(copies.decide(&copy(1, (1, 11), 7, 36), REPEATS), Decision::Repeat);
        assert_eq!(copies.late(), 1);
        copies.begin();
        let late = copy(1, (1, 11), 7, 36);
        assert_eq!(copies.decide(&late, LateCopies::AreEvents), Decision::First);
        assert_eq!(
            copies.decide(&copy(1, (1, 12), 7, 36), LateCopies::AreEvents),
            Decision::Repeat
        );
        assert_eq!(copies.late(), 1);
        copies.undo();
        assert_eq!(copies.decide(&late, REPEATS), Decision::Repeat);
    }
}
