//! Whether the audit tells of every record of the log: its ranges tile, and its counts agree with the
//! tables. Pure.
//!
//! After a crash a range may be cut again from the same offset, and end elsewhere, so that ranges
//! overlap. What an offset became is the same in each, but a range does not say at which of its offsets
//! the duplicates were. So overlaps leave bounds instead of counts.

use crate::bounds::Bounds;
use crate::verdict::{Problem, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;

/// A row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRow {
    pub topic: String,
    pub epoch: u16,
    pub partition: u16,
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    pub records: u64,
    /// Stored, duplicates, conflicts, dead letters.
    pub outcomes: [u64; 4],
}

/// What the tables hold, whoever wrote to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableCounts {
    pub billable_rows: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
}

/// What is expected of the audit when nobody else wrote to the log.
#[derive(Clone, Copy, Debug)]
pub struct Produced {
    /// Records of events, as the ledger knows them and as others are known to have added.
    pub records: Bounds,
    /// Records that are no events.
    pub dead_letters: Bounds,
}

/// What the audit tells, over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    pub partitions: u64,
    pub ranges: u64,
    /// Ranges that begin within another one: replays.
    pub overlapping_ranges: u64,
    /// Offsets covered.
    pub records: u64,
    pub stored: Bounds,
    pub duplicates: Bounds,
    pub conflicts: Bounds,
    pub dead_letters: Bounds,
    pub tables: TableCounts,
}

/// Adds up `ranges`, and reports gaps between them and ranges that contradict themselves.
///
/// `from_the_start` says that the log was empty when the consumer began, so that each partition has to
/// be covered from its first offset on, which is 0.
pub fn add_up(mut ranges: Vec<RangeRow>, from_the_start: bool, verdict: &mut Verdict) -> Audited {
    ranges.sort_by(|a, b| {
        let key = |range: &RangeRow| (range.epoch, range.partition, range.first, range.last);
        a.topic.cmp(&b.topic).then(key(a).cmp(&key(b)))
    });
    let mut audited = Audited::default();
    let mut covered: BTreeMap<(String, u16, u16), u64> = BTreeMap::new();
    for range in ranges {
        let partition = (range.topic.clone(), range.epoch, range.partition);
        let start = if from_the_start { 0 } else { range.first };
        let next = covered.entry(partition).or_insert(start);
        if range.first > *next {
            verdict.add(Problem::AuditGap, || {
                format!("{next} to {} before {range:?}", range.first - 1)
            });
        }
        let length = (range.last + 1).saturating_sub(range.first);
        if range.records != length || range.records != range.outcomes.iter().sum::<u64>() {
            verdict.add(Problem::AuditRange, || format!("{range:?}"));
        }
        let known = next.saturating_sub(range.first).min(length);
        audited.add(&range, length, known);
        *next = (*next).max(range.last + 1);
    }
    audited.partitions = u64::try_from(covered.len()).expect("a count of partitions");
    audited
}

impl Audited {
    fn add(&mut self, range: &RangeRow, length: u64, known: u64) {
        self.ranges += 1;
        self.overlapping_ranges += u64::from(known > 0);
        self.records += length - known;
        let more = range.outcomes.map(|count| Bounds {
            min: count.saturating_sub(known),
            max: count.min(length - known),
        });
        self.stored = self.stored.plus(more[0]);
        self.duplicates = self.duplicates.plus(more[1]);
        self.conflicts = self.conflicts.plus(more[2]);
        self.dead_letters = self.dead_letters.plus(more[3]);
    }

    /// Compares with the tables, and with what was produced: accepted = stored + duplicate + conflict + parked.
    pub fn balance(&mut self, tables: TableCounts, produced: Produced, verdict: &mut Verdict) {
        self.tables = tables;
        let pairs = [
            ("rows of the billing view", tables.billable_rows, self.stored),
            ("conflicts", tables.conflicts, self.conflicts),
            ("dead letters", tables.dead_letters, self.dead_letters),
        ];
        for (what, found, audited) in pairs {
            if !audited.contains(found) {
                verdict.add(Problem::Unbalanced, || {
                    format!("{found} {what}, and {audited} in the audit")
                });
            }
        }
        if !produced.dead_letters.contains(tables.dead_letters) {
            verdict.add(Problem::DeadLetters, || {
                format!("{}, expected {}", tables.dead_letters, produced.dead_letters)
            });
        }
        let produced = produced.records.plus(produced.dead_letters);
        if !produced.contains(self.records) {
            verdict.add(Problem::Unbalanced, || {
                format!("{} records in the audit, {produced} were produced", self.records)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(partition: u16, first: u64, last: u64, outcomes: [u64; 4]) -> RangeRow {
        let topic = "usage.events".to_owned();
        RangeRow { topic, epoch: 0, partition, first, last, records: last - first + 1, outcomes }
    }

    /// Partition 0 has 100 records in three ranges, partition 1 has 10 in one.
    fn right() -> Vec<RangeRow> {
        vec![
            range(1, 0, 9, [9, 0, 0, 1]),
            range(0, 50, 59, [10, 0, 0, 0]),
            range(0, 0, 49, [45, 5, 0, 0]),
            range(0, 60, 99, [37, 2, 1, 0]),
        ]
    }

    const TABLES: TableCounts = TableCounts { billable_rows: 101, conflicts: 1, dead_letters: 1 };
    const PRODUCED: Produced =
        Produced { records: Bounds { min: 105, max: 112 }, dead_letters: Bounds::exactly(1) };

    fn judged(
        ranges: Vec<RangeRow>,
        tables: TableCounts,
        produced: Produced,
    ) -> (Audited, Vec<Problem>) {
        let mut verdict = Verdict::default();
        let mut audited = add_up(ranges, true, &mut verdict);
        audited.balance(tables, produced, &mut verdict);
        (audited, verdict.findings.into_keys().collect())
    }

    #[test]
    fn a_right_audit_balances() {
        let (audited, problems) = judged(right(), TABLES, PRODUCED);
        assert_eq!(problems, []);
        assert_eq!((audited.partitions, audited.ranges, audited.records), (2, 4, 110));
        assert_eq!(
            (audited.stored, audited.duplicates),
            (Bounds::exactly(101), Bounds::exactly(7))
        );
    }

    #[test]
    fn a_gap_fails_wherever_it_is() {
        for missing in [1, 2] {
            let mut ranges = right();
            ranges.remove(missing);
            let mut verdict = Verdict::default();
            add_up(ranges, true, &mut verdict);
            assert!(verdict.findings.contains_key(&Problem::AuditGap), "{missing}");
        }
        let mut verdict = Verdict::default();
        add_up(vec![range(0, 5, 9, [5, 0, 0, 0])], false, &mut verdict);
        assert!(verdict.passed(), "a log that was there before may begin anywhere");
    }

    #[test]
    fn a_lost_last_range_is_out_of_balance() {
        let mut ranges = right();
        ranges.pop();
        assert_eq!(judged(ranges, TABLES, PRODUCED).1, [Problem::Unbalanced]);
    }

    #[test]
    fn a_range_that_does_not_add_up_fails() {
        let mut ranges = right();
        ranges[0].outcomes[0] -= 1;
        assert!(judged(ranges, TABLES, PRODUCED).1.contains(&Problem::AuditRange));
        let mut ranges = right();
        ranges[0].records += 1;
        ranges[0].outcomes[0] += 1;
        assert!(judged(ranges, TABLES, PRODUCED).1.contains(&Problem::AuditRange));
    }

    #[test]
    fn replays_leave_bounds_that_hold_the_truth() {
        let mut ranges = right();
        // Cut again from 50, to an end within the next range.
        ranges.push(range(0, 50, 69, [18, 1, 1, 0]));
        // And a late copy of the beginning.
        ranges.push(range(0, 20, 29, [10, 0, 0, 0]));
        let (audited, problems) = judged(ranges, TABLES, PRODUCED);
        assert_eq!(problems, []);
        assert_eq!((audited.records, audited.overlapping_ranges), (110, 3));
        assert!(audited.stored.contains(101) && audited.stored.min < audited.stored.max);
    }

    #[test]
    fn every_count_that_differs_is_out_of_balance() {
        let wrong = [
            TableCounts { billable_rows: 100, ..TABLES },
            TableCounts { billable_rows: 102, ..TABLES },
            TableCounts { conflicts: 0, ..TABLES },
        ];
        for tables in wrong {
            assert_eq!(judged(right(), tables, PRODUCED).1, [Problem::Unbalanced], "{tables:?}");
        }
        let none = TableCounts { dead_letters: 0, ..TABLES };
        assert_eq!(judged(right(), none, PRODUCED).1, [Problem::Unbalanced, Problem::DeadLetters]);
        let records = Bounds { min: 110, max: 112 };
        let more = Produced { records, ..PRODUCED };
        assert_eq!(judged(right(), TABLES, more).1, [Problem::Unbalanced], "one was acknowledged");
        let none = Produced { dead_letters: Bounds::exactly(0), ..PRODUCED };
        assert_eq!(judged(right(), TABLES, none).1, [Problem::DeadLetters]);
    }

    #[test]
    fn another_epoch_is_another_log() {
        let mut ranges = right();
        let mut later = right();
        later.iter_mut().for_each(|range| range.epoch = 1);
        ranges.extend(later);
        let mut verdict = Verdict::default();
        let audited = add_up(ranges, true, &mut verdict);
        assert!(verdict.passed());
        assert_eq!((audited.partitions, audited.records, audited.overlapping_ranges), (4, 220, 0));
    }
}
