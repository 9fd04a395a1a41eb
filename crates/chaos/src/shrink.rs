//! Finds fewer faults that still make a trial fail.

use crate::schedule::TimedFault;

/// Takes faults away one after the other, for as long as the rest still fails.
///
/// A trial is not fully determined by its schedule, so a rest counts as failing when one of
/// `attempts` trials with it does; a fault that is needed only sometimes may be kept.
pub fn shrink(
    schedule: &[TimedFault],
    attempts: u32,
    mut fails: impl FnMut(&[TimedFault]) -> bool,
) -> Vec<TimedFault> {
    let mut kept = schedule.to_vec();
    let mut place = kept.len();
    while place > 0 {
        place -= 1;
        let mut rest = kept.clone();
        rest.remove(place);
        if (0..attempts).any(|_| fails(&rest)) {
            kept = rest;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Process};

    fn kill(at: u64) -> TimedFault {
        TimedFault { at, lasts: 1, fault: Fault::Kill(Process::ClickHouse) }
    }

    #[test]
    fn what_is_not_needed_goes_and_the_order_stays() {
        let schedule: Vec<_> = (0..8).map(kill).collect();
        let mut trials = 0;
        let needed = |rest: &[TimedFault]| {
            trials += 1;
            rest.contains(&kill(2)) && rest.contains(&kill(5))
        };
        assert_eq!(shrink(&schedule, 1, needed), [kill(2), kill(5)]);
        assert_eq!(trials, 8, "one trial for each fault");
    }

    #[test]
    fn a_failure_that_comes_and_goes_is_tried_again() {
        let mut trials = 0;
        let every_third = |_: &[TimedFault]| {
            trials += 1;
            trials % 3 == 0
        };
        assert_eq!(shrink(&[kill(0), kill(1)], 3, every_third), []);
    }

    #[test]
    fn a_schedule_that_does_not_fail_is_left_alone() {
        assert_eq!(shrink(&[kill(0), kill(1)], 2, |_| false), [kill(0), kill(1)]);
    }
}
