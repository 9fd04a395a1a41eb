//! The partitions whose indexes are to be rebuilt, one after the other: each reads the whole table.

use super::{Parts, Report, order};
use crate::batch::Tenure;
use crate::dedup::rebuild::{RebuildRequest, rebuild};
use crate::rebalance::Partitions;
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

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
            since: at - parts.config.horizon,
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
