use super::*;
use crate::dedup::{Copy, PositionOrder, Verdict};
use metering::identity::identity_hash;

fn copy(offset: Offset) -> Copy {
    let place = PositionOrder::new(1).current(offset);
    Copy {
        hash: identity_hash(&offset.to_le_bytes()),
        place,
        fingerprint: 0,
        accepted_at: chrono::DateTime::UNIX_EPOCH,
        decided_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn assignment(start: Offset) -> Assignment {
    Assignment { partition: 3, start }
}

/// Partition 3, whose index has seen offsets 0 to 9.
fn held() -> Partitions {
    let mut partitions = Partitions::default();
    assert_eq!(partitions.assign(&[assignment(0)]).len(), 1, "a new partition needs its index");
    let mut index = PartitionIndex::new(PositionOrder::new(1));
    for offset in 0..10 {
        index.decide(&copy(offset));
    }
    let tenure = partitions.get_mut(3).unwrap().tenure();
    *partitions.get_mut(3).unwrap() = Partition::new(tenure, 10, Some(index));
    partitions
}

fn range(tenure: Tenure, next: Offset) -> Range {
    Range { tenure, first: 0, next }
}

#[test]
fn an_index_that_comes_back_is_cut_to_where_reading_starts() {
    for start in [10, 4] {
        let mut partitions = held();
        partitions.revoke(&[3]);
        assert!(partitions.index_bytes() > 0);
        assert_eq!(partitions.assign(&[assignment(start)]), []);
        let partition = partitions.get_mut(3).unwrap();
        assert_eq!(
            (partition.next(), partition.index().unwrap().len()),
            (start, usize::try_from(start).unwrap())
        );
        assert_eq!(
            partition.index_mut().unwrap().decide(&copy(4)),
            if start == 4 { Verdict::First } else { Verdict::Replay }
        );
    }
}

#[test]
fn an_index_that_somebody_else_has_read_past_is_rebuilt() {
    let mut partitions = held();
    partitions.revoke(&[3]);
    assert_eq!(partitions.assign(&[assignment(11)]).len(), 1);
    assert!(partitions.get_mut(3).unwrap().index().is_none());
}

/// The topic may have been created anew: the index would be emptied, and nothing compared with the store.
#[test]
fn an_index_is_rebuilt_when_reading_starts_before_what_was_stored() {
    for (start, rebuilt) in [(5, 1), (6, 0)] {
        let mut partitions = held();
        let tenure = partitions.get_mut(3).unwrap().tenure();
        partitions.inserted(&[range(tenure, 6)]);
        partitions.revoke(&[3]);
        assert_eq!(partitions.assign(&[assignment(start)]).len(), rebuilt);
    }
    let mut partitions = held();
    partitions.revoke(&[3]);
    assert_eq!(partitions.assign(&[assignment(6)]), []);
    partitions.revoke(&[3]);
    assert_eq!(
        partitions.assign(&[assignment(5)]).len(),
        1,
        "all before where it started was stored"
    );
}

#[test]
fn an_index_that_does_not_come_back_with_the_next_assignment_is_dropped() {
    let mut partitions = held();
    partitions.revoke(&[3]);
    partitions.assign(&[Assignment { partition: 4, start: 0 }]);
    assert_eq!(partitions.ids(), 0);
}

#[test]
fn only_what_was_read_under_the_present_assignment_is_committed() {
    let mut partitions = held();
    let before = partitions.get_mut(3).unwrap().tenure();
    partitions.inserted(&[range(before, 5)]);
    assert_eq!(partitions.to_commit(), [(3, 5)]);
    partitions.revoke(&[3]);
    assert_eq!(partitions.to_commit(), []);
    partitions.assign(&[assignment(2)]);
    partitions.inserted(&[range(before, 9)]);
    assert_eq!(
        partitions.to_commit(),
        [],
        "an insert of before the rebalance says nothing about now"
    );
    let now = partitions.get_mut(3).unwrap().tenure();
    partitions.inserted(&[range(now, 4)]);
    assert_eq!(partitions.to_commit(), [(3, 4)]);
    partitions.committed();
    assert_eq!(partitions.to_commit(), []);
}

#[test]
fn partitions_take_turns() {
    let mut partitions = Partitions::default();
    assert_eq!(partitions.following(0), None);
    partitions.assign(&[2, 5, 9].map(|partition| Assignment { partition, start: 0 }));
    assert_eq!(
        [0, 2, 5, 9, u16::MAX].map(|after| partitions.following(after)),
        [2, 5, 9, 2, 2].map(Some)
    );
}
