//! Follows the log of changes and forgets what changed.

use super::Shared;
use crate::error::ConfigError;
use crate::model::{ChangeKind, ConfigChange};
use crate::store::CHANGES_PAGE;
use chrono::{DateTime, Utc};
use fault_injection::{Sabotage, sabotaged};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Longest time for one look at the log; with the interval before it well below the two seconds in
/// which a revocation has to be seen.
const POLL_LIMIT: Duration = Duration::from_millis(750);

/// Up to when the caches are known to be complete.
#[derive(Debug)]
pub(super) struct Confirmation {
    latest: Mutex<Option<DateTime<Utc>>>,
    stale_for: Duration,
}

impl Confirmation {
    pub(super) const fn new(stale_for: Duration) -> Self {
        Self { latest: Mutex::new(None), stale_for }
    }

    pub(super) fn latest(&self) -> Option<DateTime<Utc>> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether at `at` an entry may be used that was loaded at `loaded_at` and not removed since.
    ///
    /// A clock that was set back makes instants of the future; they count by their distance too.
    pub(super) fn covers(&self, loaded_at: DateTime<Utc>, at: DateTime<Utc>) -> bool {
        let confirmed_at = self.latest().map_or(loaded_at, |latest| latest.max(loaded_at));
        let age = (at - confirmed_at).abs().to_std().expect("an absolute duration");
        age <= self.stale_for
    }

    fn set(&self, at: DateTime<Utc>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}

/// What a look at the latest number asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Read the changes after this number.
    Read(u64),
    /// Forget everything: nothing was seen before, too much was missed to read it in one page, or
    /// the database went back in time (it was restored from a backup).
    Forget,
}

fn plan(seen: Option<u64>, latest: u64) -> Step {
    match seen {
        Some(seen) if seen == latest => Step::Nothing,
        Some(seen) if seen < latest && latest - seen <= u64::from(CHANGES_PAGE) => Step::Read(seen),
        _ => Step::Forget,
    }
}

pub(super) async fn follow(shared: &Shared, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(shared.options.poll_every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    let mut is_away = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        // Noted before asking, so that it is not later than what the answer shows.
        let asked_at = shared.clock.now();
        let outcome = tokio::time::timeout(POLL_LIMIT, catch_up(shared, seen)).await;
        match flatten(outcome) {
            Ok(latest) => {
                seen = Some(latest);
                shared.confirmation.set(asked_at);
                if is_away {
                    tracing::info!(
                        seq = latest,
                        "configuration database is back; caches are up to date"
                    );
                }
                is_away = false;
            }
            Err(error) => {
                if !is_away {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, stale_for = ?shared.options.stale_for, "configuration database is away; cached keys and metrics stay in use");
                }
                is_away = true;
            }
        }
    }
}

fn flatten(
    outcome: Result<Result<u64, ConfigError>, tokio::time::error::Elapsed>,
) -> Result<u64, ConfigError> {
    outcome.unwrap_or(Err(ConfigError::TimedOut {
        operation: "following the log of changes",
        limit: POLL_LIMIT,
    }))
}

/// Forgets what changed after `seen`; returns the number up to which the caches are complete.
async fn catch_up(shared: &Shared, seen: Option<u64>) -> Result<u64, ConfigError> {
    let latest = shared.store.latest_change().await?;
    match plan(seen, latest) {
        Step::Nothing => Ok(latest),
        Step::Read(seen) => {
            let changes = shared.store.changes_after(seen).await?;
            for change in &changes {
                forget(shared, change).await;
            }
            Ok(changes.last().map_or(seen, |change| change.seq))
        }
        Step::Forget => {
            shared.keys.invalidate_all();
            shared.catalogs.invalidate_all();
            Ok(latest)
        }
    }
}

async fn forget(shared: &Shared, change: &ConfigChange) {
    if let Some(key_id) = &change.key_id
        && !sabotaged(Sabotage::CacheWithoutRevocation)
    {
        shared.keys.invalidate(key_id).await;
    }
    match change.kind {
        ChangeKind::BillableMetricCreated
        | ChangeKind::BillableMetricArchived
        | ChangeKind::Unknown => shared.catalogs.invalidate(&change.organization_id).await,
        ChangeKind::OrganizationCreated
        | ChangeKind::ApiKeyCreated
        | ChangeKind::ApiKeyRevoked
        | ChangeKind::CustomerChanged => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_reads_what_it_can_and_forgets_everything_otherwise() {
        let page = u64::from(CHANGES_PAGE);
        assert_eq!(plan(None, 0), Step::Forget);
        assert_eq!(plan(Some(7), 7), Step::Nothing);
        assert_eq!(plan(Some(7), 8), Step::Read(7));
        assert_eq!(plan(Some(7), 7 + page), Step::Read(7));
        assert_eq!(plan(Some(7), 8 + page), Step::Forget);
        assert_eq!(plan(Some(7), 6), Step::Forget);
    }

    #[test]
    fn a_change_is_seen_within_two_seconds_even_when_one_look_fails() {
        let interval = super::super::CacheOptions::default().poll_every;
        assert!(interval + 2 * POLL_LIMIT <= Duration::from_secs(2));
        assert!(super::super::followed::LOOKUP_LIMIT <= Duration::from_secs(2));
    }

    #[test]
    fn an_entry_is_covered_up_to_the_limit_after_it_was_confirmed() {
        let at = |seconds: i64| DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap();
        let confirmation = Confirmation::new(Duration::from_secs(900));
        assert!(confirmation.covers(at(0), at(900)));
        assert!(!confirmation.covers(at(0), at(901)));
        confirmation.set(at(100));
        assert!(confirmation.covers(at(0), at(1_000)));
        assert!(!confirmation.covers(at(0), at(1_001)));
        // Loaded after the follower's last success.
        assert!(confirmation.covers(at(500), at(1_400)));
        // The clock was set back.
        assert!(confirmation.covers(at(500), at(-400)));
        assert!(!confirmation.covers(at(500), at(-401)));
    }
}
