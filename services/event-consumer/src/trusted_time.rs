//! The time as far as decisions may trust it: a clock that jumps ahead must not make us forget ids.

use chrono::{DateTime, Utc};
use std::time::Instant;

/// The machine's clock beside a steady one that started with it, and the store's clock.
///
/// If either clock was right when it was asked first, the true time is not before the earliest answer;
/// if the machine's was, it is not after the latest either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrustedTime {
    started: (DateTime<Utc>, Instant),
    /// What the store's clock has shown last, and when.
    store: Option<(DateTime<Utc>, Instant)>,
}

impl TrustedTime {
    /// `clock` and `steady` are the present, by either clock.
    pub(crate) fn new(clock: DateTime<Utc>, steady: Instant) -> Self {
        Self { started: (clock, steady), store: None }
    }

    /// The store's clock has shown `store`. A process that was started with a clock that is ahead does not
    /// believe it from then on.
    pub(crate) fn store_showed(&mut self, store: DateTime<Utc>, steady: Instant) {
        self.store = Some((store, steady));
    }

    /// The present at the latest: of an event that is remembered since then, the whole horizon is.
    pub(crate) fn latest(&self, steady: Instant) -> DateTime<Utc> {
        since(self.started, steady)
    }

    /// The present at the earliest: what is beyond the horizon then, is. A clock that is ahead is not
    /// believed; one that was set back is followed, as it may have been ahead at the start.
    pub(crate) fn earliest(&self, clock: DateTime<Utc>, steady: Instant) -> DateTime<Utc> {
        let trusted = clock.min(self.latest(steady));
        self.store.map_or(trusted, |shown| trusted.min(since(shown, steady)))
    }
}

fn since((shown, at): (DateTime<Utc>, Instant), steady: Instant) -> DateTime<Utc> {
    shown + steady.saturating_duration_since(at)
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

    #[test]
    fn a_clock_that_was_ahead_at_the_start_is_bounded_by_the_stores() {
        let (start, steady) = (DateTime::from_timestamp(1_800_000_000, 0).unwrap(), Instant::now());
        let ahead = start + TimeDelta::days(90);
        let mut time = TrustedTime::new(ahead, steady);
        assert_eq!(time.earliest(ahead, steady), ahead);
        time.store_showed(start, steady);
        let hour = Duration::from_secs(3600);
        assert_eq!(time.earliest(ahead + hour, steady + hour), start + hour);
        assert_eq!(time.latest(steady + hour), ahead + hour, "ids are kept for longer");
        time.store_showed(ahead + TimeDelta::days(90), steady + hour);
        assert_eq!(time.earliest(ahead + hour, steady + hour), ahead + hour, "never later");
    }

    proptest! {
        /// Whatever the clock of the producer shows, and that of the consumer from the start on, no id is
        /// forgotten within its horizon of true time, although memory is given back all the time.
        #[test]
        fn clocks_that_jump_forget_nothing_within_the_horizon(
            off in prop::sample::select(vec![0_i64, 90 * 24, -90 * 24]),
            steps in prop::collection::vec((0_i64..20, 0_usize..7, 0_usize..7, any::<bool>()), 1..200),
        ) {
            const JUMPS: [i64; 7] = [0, 0, 0, 0, 1, 90 * 24, -90 * 24];
            let (start, steady) = (DateTime::from_timestamp(1_800_000_000, 0).unwrap(), Instant::now());
            let mut time = TrustedTime::new(start + TimeDelta::hours(off), steady);
            time.store_showed(start, steady);
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
