//! When each request is due: a constant arrival rate, whatever the answers do.

use std::time::Duration;

/// The due times of a run's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Events per second.
    rate: u64,
    events_per_request: u64,
    requests: u64,
}

impl Schedule {
    /// As many requests as are due within `duration`, but at least one.
    pub fn new(rate: u64, events_per_request: u64, duration: Duration) -> Self {
        assert!(rate > 0 && events_per_request > 0, "a rate has events");
        let events = u128::from(rate) * duration.as_nanos() / 1_000_000_000;
        let requests = u64::try_from(events / u128::from(events_per_request)).unwrap_or(u64::MAX);
        Self { rate, events_per_request, requests: requests.max(1) }
    }

    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// How long after the start request `index`, counted from zero, is due.
    pub fn due(&self, index: u64) -> Duration {
        let nanoseconds = u128::from(index) * u128::from(self.events_per_request) * 1_000_000_000
            / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_evenly_spaced() {
        let schedule = Schedule::new(20_000, 100, Duration::from_secs(60));
        assert_eq!(schedule.requests(), 12_000);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_millis(5));
        assert_eq!(schedule.due(11_999), Duration::from_millis(59_995));
    }

    #[test]
    fn rounding_does_not_add_up() {
        let schedule = Schedule::new(3, 1, Duration::from_secs(3_600));
        assert_eq!(schedule.due(3 * 3_600), Duration::from_secs(3_600));
    }

    #[test]
    fn a_rate_below_one_request_still_sends_one() {
        assert_eq!(Schedule::new(1, 100, Duration::from_secs(10)).requests(), 1);
    }
}
