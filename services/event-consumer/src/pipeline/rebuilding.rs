//! The partitions whose indexes are to be rebuilt: all that wait at once, in one scan of the table.

use super::{Parts, Report, order};
use crate::batch::Tenure;
use crate::dedup::rebuild::{RebuildRequest, rebuild};
use crate::rebalance::Partitions;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How far before the horizon a rebuild reads. The records to be decided may have waited in the log
/// since before now, and their horizon begins that much earlier; this is for how long the log keeps
/// them by default.
const WAITED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Rebuilding {
    waiting: Vec<Tenure>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    tenures: Vec<Tenure>,
    abandon: CancellationToken,
}

impl Rebuilding {
    pub(super) fn add(&mut self, tenures: impl IntoIterator<Item = Tenure>) {
        self.waiting.extend(tenures);
    }

    /// Starts the rebuild of all that wait, unless there is one under way; the outcome is reported.
    /// The time now is between `at` and `at_latest`.
    pub(super) fn start_next(
        &mut self,
        parts: &Parts,
        reports: &Sender<Report>,
        (at, at_latest): (DateTime<Utc>, DateTime<Utc>),
        bytes_max: usize,
    ) {
        if self.current.is_some() || self.waiting.is_empty() {
            return;
        }
        let tenures = std::mem::take(&mut self.waiting);
        let abandon = CancellationToken::new();
        self.current = Some(Current { tenures: tenures.clone(), abandon: abandon.clone() });
        let request = RebuildRequest {
            topic: parts.config.source.topic.clone(),
            order: order(&parts.config),
            partitions: tenures.iter().map(|tenure| tenure.partition).collect(),
            at,
            at_latest,
            reach: reach(parts.config.horizon),
            bytes_max,
        };
        let (store, health, reports) = (parts.store.clone(), parts.health.clone(), reports.clone());
        let progress = Arc::new(move || health.progressed(Instant::now()));
        parts.runtime.spawn(async move {
            let outcome = tokio::select! {
                outcome = rebuild(&store, request, progress) => outcome,
                () = abandon.cancelled() => return,
            };
            // Nobody listens any more when the consumer has ended.
            drop(reports.send(Report::Rebuilt { tenures, outcome }));
        });
    }

    pub(super) fn finish(&mut self, tenures: &[Tenure]) {
        self.current.take_if(|current| current.tenures == tenures);
    }

    /// Forgets the partitions that are ours no longer. A rebuild goes on for those that are.
    pub(super) fn abandon_unless_held(&mut self, partitions: &Partitions) {
        self.waiting.retain(|tenure| partitions.holds(*tenure));
        let lost =
            |current: &mut Current| !current.tenures.iter().any(|tenure| partitions.holds(*tenure));
        if let Some(current) = self.current.take_if(lost) {
            current.abandon.cancel();
        }
    }

    pub(super) fn abandon(&self) {
        if let Some(current) = &self.current {
            current.abandon.cancel();
        }
    }
}

/// How long before a record is decided the earliest events were accepted that it may be a copy of.
fn reach(horizon: Duration) -> Duration {
    horizon + WAITED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waited_a_week_in_the_log_has_its_whole_horizon() {
        let day = Duration::from_secs(86_400);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let waiting = now - 7 * day;
        assert_eq!(now - reach(35 * day), waiting - 35 * day);
    }
}
