//! Whether the consumer makes progress: work that waits for too long fails the probe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pure part. All times are given.
#[derive(Clone, Debug)]
struct Liveness {
    limit: Duration,
    /// When something was committed, or nothing was to do.
    progress: Instant,
    /// When the pipeline last looked.
    seen: Instant,
    stalled: Option<String>,
    ready: bool,
    ended: bool,
    reported: bool,
}

impl Liveness {
    fn check(&self, now: Instant) -> Result<(), String> {
        let waited = |since: Instant| now.saturating_duration_since(since);
        if self.ended {
            return Err("the consumer has ended".to_owned());
        }
        if let Some(reason) = &self.stalled {
            return Err(reason.clone());
        }
        if waited(self.seen) >= self.limit {
            return Err(format!(
                "the consumer has not moved for {} s",
                waited(self.seen).as_secs()
            ));
        }
        if waited(self.progress) >= self.limit {
            return Err(format!(
                "records wait, and nothing was committed for {} s",
                waited(self.progress).as_secs()
            ));
        }
        Ok(())
    }
}

/// What the admin endpoint asks. Clones share one state.
#[derive(Clone, Debug)]
pub struct ConsumerHealth {
    state: Arc<Mutex<Liveness>>,
}

impl ConsumerHealth {
    /// `limit` is how long work may wait without a commit.
    pub fn new(limit: Duration, now: Instant) -> Self {
        let state = Liveness {
            limit,
            progress: now,
            seen: now,
            stalled: None,
            ready: false,
            ended: false,
            reported: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Whether the consumer makes progress, with the reason when it does not.
    pub fn live(&self) -> Result<(), String> {
        self.state().check(Instant::now())
    }

    /// Whether partitions are assigned and their indexes complete.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state();
        state.check(Instant::now())?;
        if state.ready {
            Ok(())
        } else {
            Err("no partition is assigned yet, or an index is being rebuilt".to_owned())
        }
    }

    /// Notes a commit, or a piece of a long rebuild.
    pub(crate) fn progressed(&self, now: Instant) {
        self.state().progress = now;
    }

    /// Notes a round of the pipeline; `behind` when there is work that is not committed.
    /// Returns a failure to report, once for each time that progress ends.
    pub(crate) fn observe(&self, behind: bool, ready: bool, now: Instant) -> Option<String> {
        let mut state = self.state();
        state.seen = now;
        state.ready = ready;
        if !behind {
            state.progress = now;
        }
        let failure = state.check(now).err();
        let news = failure.is_some() && !state.reported;
        state.reported = failure.is_some();
        failure.filter(|_| news)
    }

    /// Fails the probe for as long as there is a reason.
    pub(crate) fn stall(&self, reason: Option<String>) {
        self.state().stalled = reason;
    }

    pub(crate) fn end(&self) {
        self.state().ended = true;
    }

    fn state(&self) -> MutexGuard<'_, Liveness> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn work_may_wait_for_a_commit_for_a_minute_and_no_longer() {
        let start = Instant::now();
        let health = ConsumerHealth::new(LIMIT, start);
        assert_eq!(health.observe(true, true, after(start, 59)), None);
        assert!(health.observe(true, true, after(start, 60)).is_some());
        assert_eq!(health.observe(true, true, after(start, 61)), None, "it is reported once");
        health.progressed(after(start, 62));
        assert_eq!(health.observe(true, true, after(start, 63)), None);
        assert!(
            health.observe(true, true, after(start, 122)).is_some(),
            "and once more after it was well"
        );
    }

    #[test]
    fn nothing_to_do_is_progress() {
        let start = Instant::now();
        let health = ConsumerHealth::new(LIMIT, start);
        for seconds in [50, 100, 150] {
            assert_eq!(health.observe(false, true, after(start, seconds)), None);
        }
        assert_eq!(health.observe(true, true, after(start, 209)), None);
        assert!(health.observe(true, true, after(start, 210)).is_some());
    }

    #[test]
    fn a_pipeline_that_does_not_look_is_dead() {
        let start = Instant::now();
        let health = ConsumerHealth::new(LIMIT, start);
        health.observe(false, true, start);
        assert!(health.state().check(after(start, 59)).is_ok());
        assert!(health.state().check(after(start, 60)).is_err());
    }

    #[test]
    fn a_stall_and_an_end_fail_at_once() {
        let health = ConsumerHealth::new(LIMIT, Instant::now());
        assert!(health.live().is_ok() && health.ready().is_err());
        health.observe(false, true, Instant::now());
        assert!(health.ready().is_ok());
        health.stall(Some("full".to_owned()));
        assert_eq!(health.live(), Err("full".to_owned()));
        health.stall(None);
        assert!(health.live().is_ok());
        health.end();
        assert!(health.live().is_err());
    }
}
