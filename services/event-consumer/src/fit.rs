//! Whether the log of a partition is the one that the store was filled from. Pure.

use crate::error::ConsumerError;
use event_log::{Offset, PartitionId};

/// Whether the log, which is read from `start` and ends before `high`, goes on where the store ends.
/// A start before that is usual: what was stored and not committed is read once more.
pub(crate) fn check_fit(
    partition: PartitionId,
    start: Offset,
    high: Offset,
    highest_stored: Option<Offset>,
) -> Result<(), ConsumerError> {
    let Some(highest_stored) = highest_stored else { return Ok(()) };
    if highest_stored >= high {
        return Err(ConsumerError::LogBehindStore { partition, highest_stored, high });
    }
    let expected = highest_stored + 1;
    if start > expected {
        return Err(ConsumerError::Gap { partition, expected, start });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_goes_on_where_the_store_ends_or_before() {
        assert!(check_fit(3, 40, 50, None).is_ok(), "nothing is known of the log's past");
        assert!(check_fit(3, 0, 50, Some(39)).is_ok());
        assert!(check_fit(3, 40, 50, Some(39)).is_ok());
        assert!(check_fit(3, 40, 40, Some(39)).is_ok());
        assert!(matches!(
            check_fit(3, 41, 50, Some(39)),
            Err(ConsumerError::Gap { partition: 3, expected: 40, start: 41 })
        ));
        assert!(matches!(
            check_fit(3, 40, 40, Some(40)),
            Err(ConsumerError::LogBehindStore { partition: 3, highest_stored: 40, high: 40 })
        ));
    }

    #[test]
    fn a_gap_names_its_range_and_the_ways_out() {
        let text = check_fit(3, 60, 70, Some(39)).unwrap_err().to_string();
        for part in ["partition 3", "before offset 40", "at 60", "40 to 59", "ingest_batches"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
