//! Cuts a range of the log where the audit does: what it speaks of is compared with it. Pure.

use event_log::Offset;
use std::ops::Range;
use usage_store::conservation::AuditRange;

/// Consecutive offsets that are all in one range of the audit, or all in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offsets: Range<Offset>,
    /// What the audit says of the range they are in.
    pub audit: Option<AuditRange>,
}

/// The counts of a segment's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stored: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
}

/// How a segment compares with its audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Agrees,
    /// More events would be stored than the consumer stored: an earlier copy of some is known no longer.
    StoresMore,
    /// Fewer: ids that were used again after the dedup horizon, and are taken for repeats here.
    StoresLess,
}

/// `offsets` and the rest of the ranges that overlap them, as far as it is within `bounds`: only of a whole
/// range the audit says what it should become.
pub fn widened(
    offsets: &Range<Offset>,
    ranges: &[AuditRange],
    bounds: &Range<Offset>,
) -> Range<Offset> {
    let overlap = |range: &&AuditRange| range.first < offsets.end && offsets.start <= range.last;
    ranges.iter().filter(overlap).fold(offsets.clone(), |wide, range| {
        wide.start.min(range.first.max(bounds.start))
            ..wide.end.max((range.last + 1).min(bounds.end))
    })
}

/// Cuts `offsets` at the bounds of `ranges`, which are in the order of their first offsets.
pub fn segments(offsets: Range<Offset>, ranges: &[AuditRange]) -> Vec<Segment> {
    let (mut next, end) = (offsets.start, offsets.end);
    let mut segments = Vec::new();
    let mut push = |offsets: Range<Offset>, audit: Option<AuditRange>| {
        if !offsets.is_empty() {
            segments.push(Segment { offsets, audit });
        }
    };
    for range in ranges {
        push(next..range.first.min(end), None);
        next = next.max(range.first.min(end));
        let stop = (range.last + 1).min(end);
        push(next..stop, Some(*range));
        next = next.max(stop);
    }
    push(next..end, None);
    segments
}

impl Segment {
    /// Compares what the records become now with what the audit says that they became.
    pub fn compare(&self, counts: &Counts) -> Comparison {
        let Some(audit) = &self.audit else { return Comparison::Agrees };
        let whole = self.offsets == (audit.first..audit.last + 1);
        if counts.stored > audit.stored {
            Comparison::StoresMore
        } else if whole && counts.stored < audit.stored {
            Comparison::StoresLess
        } else {
            Comparison::Agrees
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, last: u64, stored: u64) -> AuditRange {
        let records = last + 1 - first;
        AuditRange {
            first,
            last,
            records,
            stored,
            duplicates: records - stored,
            conflicts: 0,
            dead_letters: 0,
        }
    }

    #[test]
    fn a_range_is_cut_where_the_audit_is() {
        let ranges = [range(0, 9, 10), range(10, 19, 10), range(15, 29, 15), range(40, 49, 10)];
        let cut: Vec<_> = segments(5..60, &ranges)
            .into_iter()
            .map(|s| (s.offsets, s.audit.map(|a| a.first)))
            .collect();
        assert_eq!(
            cut,
            [
                (5..10, Some(0)),
                (10..20, Some(10)),
                (20..30, Some(15)),
                (30..40, None),
                (40..50, Some(40)),
                (50..60, None)
            ]
        );
        assert_eq!(segments(5..5, &ranges), []);
    }

    #[test]
    fn ranges_are_taken_whole_within_the_bounds() {
        let ranges = [range(0, 9, 10), range(10, 19, 10), range(15, 29, 15), range(40, 49, 10)];
        assert_eq!(widened(&(12..13), &ranges, &(0..60)), 10..20);
        assert_eq!(widened(&(10..20), &ranges, &(0..60)), 10..30, "until nothing more overlaps");
        assert_eq!(widened(&(12..45), &ranges, &(11..47)), 11..47);
        assert_eq!(widened(&(30..40), &ranges, &(0..60)), 30..40);
        assert_eq!(widened(&(29..41), &ranges, &(0..60)), 15..50);
    }

    #[test]
    fn more_is_never_stored_than_the_audit_has() {
        let counts = |stored| Counts { stored, ..Counts::default() };
        let whole = Segment { offsets: 0..10, audit: Some(range(0, 9, 7)) };
        assert_eq!(whole.compare(&counts(7)), Comparison::Agrees);
        assert_eq!(whole.compare(&counts(8)), Comparison::StoresMore);
        assert_eq!(whole.compare(&counts(6)), Comparison::StoresLess);
        let part = Segment { offsets: 5..10, ..whole };
        assert_eq!(part.compare(&counts(3)), Comparison::Agrees, "the rest may hold the others");
        let none = Segment { offsets: 0..10, audit: None };
        assert_eq!(none.compare(&counts(10)), Comparison::Agrees);
    }

    proptest! {
        #[test]
        fn segments_tile_the_range(start in 0_u64..50, length in 0_u64..50, cuts in prop::collection::vec((0_u64..100, 1_u64..20), 0..8)) {
            let mut ranges: Vec<_> = cuts.into_iter().map(|(first, length)| range(first, first + length - 1, 0)).collect();
            ranges.sort_by_key(|range| range.first);
            let mut next = start;
            for segment in segments(start..start + length, &ranges) {
                prop_assert_eq!(segment.offsets.start, next);
                prop_assert!(!segment.offsets.is_empty());
                let within = |range: &AuditRange| range.first <= segment.offsets.start && segment.offsets.end <= range.last + 1;
                prop_assert_eq!(segment.audit.is_some(), ranges.iter().any(within));
                prop_assert!(segment.audit.is_none_or(|audit| within(&audit)));
                next = segment.offsets.end;
            }
            prop_assert_eq!(next, start + length);
        }
    }
}
