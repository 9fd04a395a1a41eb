//! The copies of each event among the records of a range: found by sorting, which needs no table. Pure.

use super::table::LineId;
use std::collections::HashMap;

/// Bytes of a copy.
pub const COPY_BYTES: u64 = 32;

/// A record that is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    identity: [u8; 16],
    /// Its index in the range.
    at: u32,
    /// Line plus one; zero for none.
    line: u32,
    /// The low 40 bits of its fingerprint, as many as the dedup index compares.
    fingerprint: u64,
}

const _: () = assert!(size_of::<Copy>() == 32, "memory is counted by it");

/// A billed copy from before the range: epoch and offset, and 40 bits of its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reference {
    place: (u16, u64),
    fingerprint: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Copies {
    copies: Vec<Copy>,
    references: HashMap<[u8; 16], Reference>,
}

/// What a record without a row turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// No copy of a billed event: it should be billed itself.
    Missing,
    /// A later copy of a billed event, which says the same.
    Repeat,
    /// A later copy of a billed event, which says something else.
    Conflict,
}

/// Whether a record has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Billed,
    None,
    /// It was accepted when the rows that were read were not: it may have one.
    Unknown,
}

pub(super) const fn short(fingerprint: u64) -> u64 {
    fingerprint & ((1 << 40) - 1)
}

impl Copies {
    /// Room for `length` copies.
    pub fn with_capacity(length: usize) -> Self {
        Self { copies: Vec::with_capacity(length), references: HashMap::new() }
    }

    /// Takes the record at index `at` of the range.
    pub fn push(&mut self, identity: [u8; 16], at: usize, fingerprint: u64, line: Option<LineId>) {
        let index = |number: usize| u32::try_from(number).expect("the memory bounds the range");
        let line = line.map_or(0, |line| index(line) + 1);
        self.copies.push(Copy { identity, at: index(at), line, fingerprint: short(fingerprint) });
    }

    /// Brings the copies of each event together, in their order in the log.
    pub fn sort(&mut self) {
        self.copies.sort_unstable();
    }

    /// The events of which a copy before the range may be needed. After [`Self::sort`].
    pub fn in_need_of_history(
        &self,
        row: impl Fn(usize) -> Row,
    ) -> impl Iterator<Item = &[u8; 16]> {
        let in_need = move |group: &&[Copy]| {
            row_of(&group[0], &row) != Row::Billed
                && group.iter().any(|copy| row_of(copy, &row) == Row::None)
        };
        self.groups().filter(in_need).map(|group| &group[0].identity)
    }

    /// Takes a stored event of any time. Of those before the range the last counts: an id that was used
    /// again after the horizon is remembered by its newest use. After [`Self::sort`].
    pub fn history(
        &mut self,
        identity: [u8; 16],
        place: (u16, u64),
        fingerprint: u64,
        range_start: (u16, u64),
    ) {
        let wanted = self.copies.binary_search_by(|copy| copy.identity.cmp(&identity)).is_ok();
        if wanted && place < range_start {
            let reference = Reference { place, fingerprint: short(fingerprint) };
            let known = self.references.entry(identity).or_insert(reference);
            if known.place < place {
                *known = reference;
            }
        }
    }

    /// Bytes of what was taken from the history.
    pub fn history_bytes(&self) -> u64 {
        u64::try_from(self.references.capacity()).unwrap_or(u64::MAX).saturating_mul(56)
    }

    /// Says of every record without a row what it is: its index, its line, and that. After [`Self::sort`].
    pub fn settle(
        &self,
        row: impl Fn(usize) -> Row,
        mut each: impl FnMut(usize, Option<LineId>, Settled),
    ) {
        for group in self.groups() {
            let mut reference =
                self.references.get(&group[0].identity).map(|reference| reference.fingerprint);
            for copy in group {
                let settled = match (row_of(copy, &row), reference) {
                    (Row::Billed, _) | (Row::Unknown, None) => {
                        reference = Some(copy.fingerprint);
                        continue;
                    }
                    (Row::Unknown, Some(_)) => continue,
                    (Row::None, None) => {
                        reference = Some(copy.fingerprint);
                        Settled::Missing
                    }
                    (Row::None, Some(first)) if first == copy.fingerprint => Settled::Repeat,
                    (Row::None, Some(_)) => Settled::Conflict,
                };
                each(index(copy), copy.line.checked_sub(1).map(to_usize), settled);
            }
        }
    }

    fn groups(&self) -> impl Iterator<Item = &[Copy]> {
        self.copies.chunk_by(|a, b| a.identity == b.identity)
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("addresses have 32 bits at least")
}

fn index(copy: &Copy) -> usize {
    to_usize(copy.at)
}

fn row_of(copy: &Copy, row: &impl Fn(usize) -> Row) -> Row {
    row(index(copy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `(identity, fingerprint, row)` by index.
    fn settled(records: &[(u8, u64, Row)], history: &[(u8, u64, u64)]) -> Vec<(usize, Settled)> {
        let mut copies = Copies::with_capacity(records.len());
        for (at, (identity, fingerprint, _)) in records.iter().enumerate() {
            copies.push([*identity; 16], at, *fingerprint, Some(at));
        }
        copies.sort();
        for (identity, offset, fingerprint) in history {
            copies.history([*identity; 16], (1, *offset), *fingerprint, (1, 100));
        }
        let mut found = Vec::new();
        copies.settle(
            |at| records[at].2,
            |at, line, settled| {
                assert_eq!(line, Some(at));
                found.push((at, settled));
            },
        );
        found.sort_unstable_by_key(|(at, _)| *at);
        found
    }

    #[test]
    fn a_record_without_a_row_is_missing_or_a_later_copy() {
        use Row::{Billed, None, Unknown};
        use Settled::{Conflict, Missing, Repeat};
        assert_eq!(
            settled(
                &[
                    (1, 7, Billed),
                    (2, 7, None),
                    (1, 7, None),
                    (1, 8, None),
                    (2, 7, None),
                    (2, 8, None)
                ],
                &[]
            ),
            [(1, Missing), (2, Repeat), (3, Conflict), (4, Repeat), (5, Conflict)]
        );
        assert_eq!(
            settled(&[(3, 7, Unknown), (3, 7, None), (3, 8, None)], &[]),
            [(1, Repeat), (2, Conflict)]
        );
        // The high bits of a fingerprint are not compared.
        assert_eq!(settled(&[(1, 7, Billed), (1, 7 | 1 << 40, None)], &[]), [(1, Repeat)]);
    }

    #[test]
    fn the_billed_copy_may_stand_before_the_range() {
        use Settled::{Conflict, Missing, Repeat};
        let records = [(1, 7, Row::None), (1, 8, Row::None)];
        assert_eq!(settled(&records, &[(1, 5, 7)]), [(0, Repeat), (1, Conflict)]);
        assert_eq!(settled(&records, &[(1, 5, 7), (1, 9, 8)]), [(0, Conflict), (1, Repeat)]);
        assert_eq!(settled(&records, &[(1, 9, 8), (1, 5, 7)]), [(0, Conflict), (1, Repeat)]);
        assert_eq!(settled(&records, &[(1, 100, 7), (2, 5, 7)]), [(0, Missing), (1, Conflict)]);
    }

    #[test]
    fn history_is_asked_for_only_when_it_matters() {
        let in_need = |records: &[(u8, Row)]| {
            let mut copies = Copies::with_capacity(9);
            records
                .iter()
                .enumerate()
                .for_each(|(at, (id, _))| copies.push([*id; 16], at, 0, None));
            copies.sort();
            copies
                .in_need_of_history(|at| records[at].1)
                .map(|identity| identity[0])
                .collect::<Vec<_>>()
        };
        assert_eq!(in_need(&[(1, Row::Billed), (1, Row::None), (2, Row::Unknown)]), [0; 0]);
        assert_eq!(in_need(&[(1, Row::Billed), (2, Row::None), (3, Row::None)]), [2, 3]);
        assert_eq!(in_need(&[(1, Row::Unknown), (1, Row::None)]), [1]);
    }

    proptest! {
        /// Against the rule itself, on a log with a consumer that may have lost rows.
        #[test]
        fn every_record_is_what_the_consumer_would_have_made_of_it(records in prop::collection::vec((0_u8..6, 0_u64..3), 0..40)) {
            let mut first = HashMap::new();
            let (mut rows, mut expected) = (Vec::new(), Vec::new());
            for (at, (identity, fingerprint)) in records.iter().enumerate() {
                let known = *first.entry(*identity).or_insert((at, *fingerprint));
                if known.0 == at {
                    rows.push((*identity, *fingerprint, Row::Billed));
                } else {
                    rows.push((*identity, *fingerprint, Row::None));
                    let same = known.1 == *fingerprint;
                    expected.push((at, if same { Settled::Repeat } else { Settled::Conflict }));
                }
            }
            prop_assert_eq!(settled(&rows, &[]), expected);
        }
    }
}
