//! Whether the audit's ranges cover a part of the log, and count what is there. Pure.

use super::findings::{Check, Findings};
use event_log::Offset;
use std::ops::Range;
use usage_store::Position;
use usage_store::conservation::AuditRange;

/// What became of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Became {
    /// There is no record at this offset.
    #[default]
    Nothing,
    Stored,
    /// It should be stored, and is not.
    Missing,
    Duplicate,
    Conflict,
    Parked,
    /// There is one that this proof does not look at.
    Unseen,
}

/// What became of the records of consecutive offsets.
#[derive(Clone, Debug)]
pub struct Records {
    pub epoch: u16,
    pub partition: u16,
    pub first: Offset,
    pub became: Vec<Became>,
    /// Whether offsets at which nothing was seen may hold duplicates: the log has deleted its records.
    pub log_is_gone: bool,
}

impl Records {
    fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.epoch, partition: self.partition, offset }
    }

    fn end(&self) -> Offset {
        self.first + u64::try_from(self.became.len()).expect("a length fits 64 bits")
    }

    fn slice(&self, offsets: Range<Offset>) -> &[Became] {
        let at = |offset: Offset| {
            usize::try_from(offset.clamp(self.first, self.end()) - self.first)
                .expect("an index of a vector")
        };
        &self.became[at(offsets.start)..at(offsets.end)]
    }

    /// The offsets of records that no range covers, as ranges.
    pub fn uncovered(&self, ranges: &[AuditRange]) -> Vec<Range<Offset>> {
        let (mut next, mut gaps) = (self.first, Vec::new());
        for range in ranges {
            if range.first > next {
                gaps.push(next..range.first.min(self.end()));
            }
            next = next.max(range.last + 1);
        }
        if next < self.end() {
            gaps.push(next..self.end());
        }
        // Of a log that is there it is known which offsets hold no record: markers of transactions.
        gaps.retain(|gap| {
            !gap.is_empty()
                && (self.log_is_gone
                    || self.slice(gap.clone()).iter().any(|b| *b != Became::Nothing))
        });
        gaps
    }

    /// Compares the records with what the audit says of them. `ranges` overlap them and are in the order
    /// of their first offsets; some may overlap each other, where a range was read again after a crash.
    pub fn check(&self, ranges: &[AuditRange], findings: &mut Findings) {
        for gap in self.uncovered(ranges) {
            let detail = format!(
                "the audit says nothing of offsets {} to {} ({} of them)",
                gap.start,
                gap.end - 1,
                gap.end - gap.start
            );
            findings.add(Check::AuditComplete, self.position(gap.start), detail);
        }
        for range in ranges {
            if let Some(detail) = self.disagreement(range) {
                findings.add(Check::AuditAgrees, self.position(range.first), detail);
            }
        }
    }

    fn disagreement(&self, range: &AuditRange) -> Option<String> {
        let AuditRange { first, last, records, stored, duplicates, conflicts, dead_letters } =
            *range;
        if stored + duplicates + conflicts + dead_letters != records {
            return Some(format!("the range to {last} contradicts itself: {range:?}"));
        }
        let within = first >= self.first && last < self.end();
        let slice = self.slice(first..last + 1);
        if !within || slice.contains(&Became::Unseen) {
            return None;
        }
        let count = |what: Became| {
            u64::try_from(slice.iter().filter(|became| **became == what).count())
                .expect("a count fits 64 bits")
        };
        // An accepted loss: the records are gone, and an operator has said so.
        let lost = records == 0 && count(Became::Nothing) == last + 1 - first;
        let stored_once = count(Became::Stored) + count(Became::Missing);
        let kept = [stored_once, count(Became::Conflict), count(Became::Parked)];
        let repeats = count(Became::Duplicate);
        if lost
            || (kept == [stored, conflicts, dead_letters]
                && (self.log_is_gone || repeats == duplicates))
        {
            return None;
        }
        Some(format!(
            "the range to {last} should hold {} events, {repeats} repeats, {} conflicts and {} parked, and the audit says {stored}, {duplicates}, {conflicts} and {dead_letters}",
            kept[0], kept[1], kept[2]
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Became::{Conflict, Duplicate, Nothing, Parked, Stored, Unseen};
    use proptest::prelude::*;

    fn records(first: Offset, became: &[Became]) -> Records {
        Records { epoch: 1, partition: 3, first, became: became.to_vec(), log_is_gone: false }
    }

    fn range(first: u64, last: u64, counts: [u64; 4]) -> AuditRange {
        let [stored, duplicates, conflicts, dead_letters] = counts;
        AuditRange {
            first,
            last,
            records: counts.iter().sum(),
            stored,
            duplicates,
            conflicts,
            dead_letters,
        }
    }

    fn found(records: &Records, ranges: &[AuditRange]) -> [u64; 2] {
        let mut findings = Findings::new(9);
        records.check(ranges, &mut findings);
        [Check::AuditComplete, Check::AuditAgrees]
            .map(|check| findings.against(check).map_or(0, |found| found.count))
    }

    #[test]
    fn ranges_that_tile_and_count_rightly_pass_also_when_a_replay_overlaps() {
        let log = records(10, &[Stored, Stored, Duplicate, Conflict, Parked, Stored]);
        let tiles = [range(10, 12, [2, 1, 0, 0]), range(13, 15, [1, 0, 1, 1])];
        assert_eq!(found(&log, &tiles), [0, 0]);
        let overlapping = [range(10, 13, [2, 1, 1, 0]), range(12, 15, [1, 1, 1, 1])];
        assert_eq!(found(&log, &overlapping), [0, 0]);
        // Ranges that go beyond what is looked at are not counted.
        let beyond = [range(0, 12, [99, 0, 0, 0]), range(13, 99, [99, 0, 0, 0])];
        assert_eq!(found(&log, &beyond), [0, 0]);
    }

    #[test]
    fn gaps_and_wrong_counts_are_found() {
        let log = records(10, &[Stored, Stored, Duplicate, Stored]);
        assert_eq!(found(&log, &[]), [1, 0]);
        assert_eq!(found(&log, &[range(11, 12, [1, 1, 0, 0])]), [2, 0]);
        assert_eq!(found(&log, &[range(10, 13, [4, 0, 0, 0])]), [0, 1]);
        let mut contradiction = range(10, 13, [3, 1, 0, 0]);
        contradiction.records = 5;
        assert_eq!(found(&log, &[contradiction]), [0, 1]);
    }

    #[test]
    fn offsets_without_a_record_need_no_audit_and_a_loss_may_be_accepted() {
        let log = records(10, &[Stored, Nothing, Nothing, Stored]);
        let ends = [range(10, 10, [1, 0, 0, 0]), range(13, 13, [1, 0, 0, 0])];
        assert_eq!(found(&log, &ends), [0, 0]);
        let accepted = [ends[0], range(11, 12, [0; 4]), ends[1]];
        assert_eq!(found(&log, &accepted), [0, 0]);
        let denied = records(10, &[Stored, Stored]);
        assert_eq!(found(&denied, &[range(10, 11, [0; 4])]), [0, 1], "those records are there");
    }

    #[test]
    fn without_the_log_repeats_cannot_be_counted_and_gaps_are_gaps() {
        let gone =
            Records { log_is_gone: true, ..records(10, &[Stored, Nothing, Nothing, Parked]) };
        assert_eq!(found(&gone, &[range(10, 13, [1, 2, 0, 1])]), [0, 0]);
        assert_eq!(found(&gone, &[range(10, 13, [2, 1, 0, 1])]), [0, 1]);
        assert_eq!(
            found(&gone, &[range(10, 10, [1, 0, 0, 0]), range(13, 13, [0, 0, 0, 1])]),
            [1, 0]
        );
    }

    #[test]
    fn what_is_not_looked_at_is_not_compared() {
        let log = records(10, &[Stored, Unseen]);
        assert_eq!(found(&log, &[range(10, 11, [0, 2, 0, 0])]), [0, 0]);
    }

    proptest! {
        /// Whatever is cut out of a tiling is found as a gap, and nothing else is.
        #[test]
        fn a_gap_is_found_wherever_it_is(cuts in prop::collection::btree_set(1_u64..60, 0..8), missing in 0_usize..9) {
            let log = records(0, &[Stored; 60]);
            let mut bounds = vec![0];
            bounds.extend(cuts);
            bounds.push(60);
            let mut ranges: Vec<_> = bounds.windows(2).map(|w| range(w[0], w[1] - 1, [w[1] - w[0], 0, 0, 0])).collect();
            prop_assert_eq!(found(&log, &ranges), [0, 0]);
            let cut = ranges.remove(missing % ranges.len());
            prop_assert_eq!(found(&log, &ranges), [1, 0]);
            prop_assert_eq!(log.uncovered(&ranges), vec![cut.first..cut.last + 1]);
        }
    }
}
