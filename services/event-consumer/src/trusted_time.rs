//! The time as far as decisions may trust it: a clock that jumps ahead must not make us forget ids.

use chrono::{DateTime, Utc};
use std::time::Instant;

/// The machine's clock beside a steady one that started with it.
///
/// If the clock was right when the process started, the true time is always between the two answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrustedTime {
    started: (DateTime<Utc>, Instant),
}

impl TrustedTime {
    /// `clock` and `steady` are the present, by either clock.
    pub(crate) fn new(clock: DateTime<Utc>, steady: Instant) -> Self {
        Self { started: (clock, steady) }
    }

    /// The present at the latest: of an event that is remembered since then, the whole horizon is.
    pub(crate) fn latest(&self, steady: Instant) -> DateTime<Utc> {
        let (start, started) = self.started;
        start + steady.saturating_duration_since(started)
    }

    /// The present at the earliest: what is beyond the horizon then, is. A clock that is ahead is not
    /// believed; one that was set back is followed, as it may have been ahead at the start.
    pub(crate) fn earliest(&self, clock: DateTime<Utc>, steady: Instant) -> DateTime<Utc> {
        clock.min(self.latest(steady))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::{Copy, PartitionIndex, PositionOrder, Verdict};
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use std::time::Duration;

    const ORDER: PositionOrder = PositionOrder::new(1);
    const HORIZON: Duration = Duration::from_secs(48 * 3600);

    #[test]
    fn a_jump_ahead_is_not_believed_and_a_jump_back_is_followed() {
        let (start, steady) = (DateTime::from_timestamp(1_800_000_000, 0).unwrap(), Instant::now());
        let time = TrustedTime::new(start, steady);
        let hour = Duration::from_secs(3600);
        let later = start + hour;
        assert_eq!(time.earliest(later, steady + hour), later);
        assert_eq!(time.earliest(later + TimeDelta::days(90), steady + hour), later);
        assert_eq!(
            time.earliest(later - TimeDelta::days(90), steady + hour),
            later - TimeDelta::days(90)
        );
        assert_eq!(time.earliest(later, steady), start, "the clock runs ahead");
    }

    proptest! {
        /// Whatever the clocks of the producer and the consumer do after the start, no id is forgotten
        /// within its horizon of true time, although memory is given back all the time.
        #[test]
        fn clocks_that_jump_forget_nothing_within_the_horizon(
            steps in prop::collection::vec((0_i64..20, 0_usize..7, 0_usize..7, any::<bool>()), 1..200),
        ) {
            const JUMPS: [i64; 7] = [0, 0, 0, 0, 1, 90 * 24, -90 * 24];
            let (start, steady) = (DateTime::from_timestamp(1_800_000_000, 0).unwrap(), Instant::now());
            let time = TrustedTime::new(start, steady);
            let mut index = PartitionIndex::new(ORDER);
            let (mut hours, mut decided) = (0, Vec::new());
            for (offset, (passed, consumer, producer, repeated)) in (0..).zip(steps) {
                hours += passed;
                let now = start + TimeDelta::hours(hours);
                let elapsed = Duration::from_secs(u64::try_from(hours).unwrap() * 3600);
                let at = time.earliest(now + TimeDelta::hours(JUMPS[consumer]), steady + elapsed);
                let accepted_at = (now + TimeDelta::hours(JUMPS[producer])).min(at);
                let decided_at = time.latest(steady + elapsed);
                let decide = |index: &mut PartitionIndex, id: u64| {
                    let hash = metering::identity::identity_hash(&id.to_le_bytes());
                    let place = ORDER.current(offset);
                    index.decide(&Copy { hash, place, fingerprint: 0, accepted_at, decided_at })
                };
                match decided.get(decided.len() / 2).copied().filter(|_| repeated) {
                    Some((id, since)) if now - since <= TimeDelta::from_std(HORIZON).unwrap() => {
                        prop_assert_eq!(decide(&mut index, id), Verdict::Duplicate);
                    }
                    _ => {
                        prop_assert_eq!(decide(&mut index, offset), Verdict::First);
                        decided.push((offset, now));
                    }
                }
                index.forget_beyond(HORIZON);
                index.sweep();
            }
        }
    }
}
