//! Where reading starts and what may be committed: the rules that both transports keep.

use crate::{LogError, Offset, PartitionId, Watermarks};
use fault_injection::{Sabotage, sabotaged};

/// The committed offset, or the start of the log: an event published before the first start counts.
pub(crate) fn starting_offset(
    partition: PartitionId,
    committed: Option<Offset>,
    Watermarks { low, high }: Watermarks,
) -> Result<Offset, LogError> {
    match committed {
        None if sabotaged(Sabotage::OffsetResetLatest) => Ok(high),
        None => Ok(low),
        Some(expected) if expected < low => Err(LogError::Gap { partition, expected, low }),
        Some(committed) if committed > high => Err(LogError::Contract(format!(
            "partition {partition} ends at offset {high}, below {committed}, the next to read: \
             the log was cut or replaced; restore it, or drop the group's offsets and reconcile"
        ))),
        Some(committed) => Ok(committed),
    }
}

/// Refuses to commit beyond what was handed out: the records between would never be read.
pub(crate) fn check_commit(
    partition: PartitionId,
    offset: Offset,
    next: Offset,
) -> Result<(), LogError> {
    if offset <= next {
        return Ok(());
    }
    Err(LogError::Permanent {
        operation: "committing an offset",
        source: format!(
            "offset {offset} of partition {partition} is beyond {next}, the next to read"
        )
        .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Watermarks = Watermarks { low: 10, high: 20 };

    #[test]
    fn reading_starts_at_the_committed_offset_or_the_start_of_the_log() {
        assert_eq!(starting_offset(3, None, RANGE).unwrap(), 10);
        assert_eq!(starting_offset(3, Some(10), RANGE).unwrap(), 10);
        assert_eq!(starting_offset(3, Some(20), RANGE).unwrap(), 20);
    }

    #[test]
    fn reading_refuses_to_start_outside_of_the_log() {
        let below = starting_offset(3, Some(9), RANGE);
        assert!(matches!(below, Err(LogError::Gap { partition: 3, expected: 9, low: 10 })));
        assert!(matches!(starting_offset(3, Some(21), RANGE), Err(LogError::Contract(_))));
    }

    #[test]
    fn a_commit_ends_where_reading_got_to() {
        assert!(check_commit(3, 20, 20).is_ok());
        assert!(matches!(check_commit(3, 21, 20), Err(LogError::Permanent { .. })));
    }
}
