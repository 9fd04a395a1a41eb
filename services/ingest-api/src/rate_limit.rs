//! The rate limit: a token bucket of events for each organization.

use crate::problem::{Problem, ProblemCode};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

/// Organizations in memory above which those with a full bucket are forgotten.
const ORGANIZATIONS_MAX: usize = 10_000;
/// How many requests pass between two looks at the number of organizations.
const CHECK_EVERY: u32 = 1024;

/// Limits the events per second of each organization, on this process.
#[derive(Debug)]
pub(crate) struct EventRateLimiter {
    buckets: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    requests: AtomicU32,
}

impl EventRateLimiter {
    /// Lets `per_second` events through in the long run, and up to `burst` at once.
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            buckets: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            per_second,
            burst,
            requests: AtomicU32::new(0),
        }
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    pub(crate) fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// Takes `events` from the organization's bucket, all or none.
    ///
    /// A request of more than the burst takes a full bucket: it could never pass otherwise.
    pub(crate) fn charge(&self, organization_id: &str, events: usize) -> Result<(), Problem> {
        self.forget_idle();
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let Some(events) = NonZeroU32::new(events.min(self.burst.get())) else { return Ok(()) };
        let charged = self.buckets.check_key_n(&organization_id.to_owned(), events);
        charged.expect("at most the burst is asked for").map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Problem::new(ProblemCode::RateLimited).retry_after(seconds)
        })
    }

    /// Keeps the number of buckets near that of the organizations active within the last seconds.
    fn forget_idle(&self) {
        let due = self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECK_EVERY);
        if due && self.buckets.len() > ORGANIZATIONS_MAX {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> EventRateLimiter {
        EventRateLimiter::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn exactly_the_burst_passes_at_once() {
        let limiter = limiter(1, 100);
        assert!(limiter.charge("a", 60).is_ok());
        assert!(limiter.charge("a", 41).is_err(), "41 of 40 left");
        assert!(limiter.charge("a", 40).is_ok(), "a refused request takes nothing");
        assert!(limiter.charge("a", 1).is_err());
    }

    #[test]
    fn organizations_do_not_share_a_bucket() {
        let limiter = limiter(1, 10);
        assert!(limiter.charge("a", 10).is_ok());
        assert!(limiter.charge("b", 10).is_ok());
        assert!(limiter.charge("a", 10).is_err());
    }

    #[test]
    fn a_request_above_the_burst_takes_a_full_bucket() {
        let limiter = limiter(1, 10);
        assert!(limiter.charge("a", 10_000).is_ok());
        assert!(limiter.charge("a", 1).is_err());
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limiter = limiter(1, 100);
        assert!(limiter.charge("a", 100).is_ok());
        let problem = limiter.charge("a", 30).unwrap_err();
        let response = problem.to_response("r");
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((25..=30).contains(&seconds), "{seconds}");
    }

    #[test]
    fn buckets_of_idle_organizations_are_forgotten() {
        // A bucket is full again after a nanosecond or so.
        let limiter = limiter(1_000_000_000, 1_000_000_000);
        for organization in 0..ORGANIZATIONS_MAX + 2 * usize::try_from(CHECK_EVERY).unwrap() {
            limiter.charge(&organization.to_string(), 1).unwrap();
        }
        assert!(limiter.buckets.len() <= ORGANIZATIONS_MAX + usize::try_from(CHECK_EVERY).unwrap());
    }
}
