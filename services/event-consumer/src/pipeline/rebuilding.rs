//! The partitions whose indexes are to be rebuilt, one after the other: each reads the whole table.

use super::{Parts, Report, order};
use crate::batch::Tenure;
use crate::dedup::rebuild::{RebuildRequest, rebuild};
use crate::rebalance::Partitions;
use chrono::{DateTime, Utc};
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How far before the horizon a rebuild reads. The records to be decided may have waited in the log
/// since before now, and their horizon begins that much earlier; this is for how long the log keeps
/// them by default.
const WAITED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Rebuilding {
    waiting: VecDeque<Tenure>,
    current: Option<(Tenure, CancellationToken)>,
}

impl Rebuilding {
    pub(super) fn add(&mut self, tenures: Vec<Tenure>) {
        self.waiting.extend(tenures);
    }

    /// Has a rebuild done before those that wait.
    pub(super) fn add_first(&mut self, tenure: Tenure) {
        self.waiting.push_front(tenure);
    }

    /// Starts the next rebuild, unless there is one under way; the outcome is reported.
    pub(super) fn start_next(&mut self, parts: &Parts, reports: &Sender<Report>, bytes_max: usize) {
        if self.current.is_some() {
            return;
        }
        let Some(tenure) = self.waiting.pop_front() else { return };
        let abandon = CancellationToken::new();
        self.current = Some((tenure, abandon.clone()));
        let at = parts.clock.now();
        let order = order(&parts.config);
        let request = RebuildRequest {
            topic: parts.config.source.topic.clone(),
            order,
            partition: tenure.partition,
            since: remembered_since(at, parts.config.horizon),
            at,
            bytes_max,
        };
        let (store, health, reports) = (parts.store.clone(), parts.health.clone(), reports.clone());
        parts.runtime.spawn(async move {
            let outcome = tokio::select! {
                outcome = rebuild(&store, request, || health.progressed(Instant::now())) => outcome,
                () = abandon.cancelled() => return,
            };
            // Nobody listens any more when the consumer has ended.
            drop(reports.send(Report::Rebuilt { tenure, outcome }));
        });
    }

    pub(super) fn finish(&mut self, tenure: Tenure) {
        self.current.take_if(|(current, _)| *current == tenure);
    }

    /// Forgets the partitions that are ours no longer.
    pub(super) fn abandon_unless_held(&mut self, partitions: &Partitions) {
        self.waiting.retain(|tenure| partitions.holds(*tenure));
        if let Some((_, abandon)) = self.current.take_if(|(tenure, _)| !partitions.holds(*tenure)) {
            abandon.cancel();
        }
    }

    pub(super) fn abandon(&self) {
        if let Some((_, abandon)) = &self.current {
            abandon.cancel();
        }
    }
}

/// The acceptance of the earliest events that a record to be decided at `at` may be a copy of.
fn remembered_since(at: DateTime<Utc>, horizon: Duration) -> DateTime<Utc> {
    at - horizon - WAITED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waited_a_week_in_the_log_has_its_whole_horizon() {
        let day = Duration::from_secs(86_400);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let waiting = now - 7 * day;
        assert_eq!(remembered_since(now, 35 * day), waiting - 35 * day);
    }
}
