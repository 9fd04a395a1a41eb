//! The batch that is being inserted; there is one at most.

use super::{Parts, Report};
use crate::batch::{SealedBatch, Tenure};
use crate::insert::insert;
use crate::rebalance::Partitions;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default)]
pub(super) struct Inserting {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    tenures: Vec<Tenure>,
    abandon: CancellationToken,
    started: Instant,
}

impl Inserting {
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Inserts `batch` on the runtime; the outcome is reported.
    pub(super) fn start(
        &mut self,
        batch: SealedBatch,
        parts: &Parts,
        reports: Sender<Report>,
        now: Instant,
    ) {
        debug_assert!(self.current.is_none(), "batches are inserted one after the other");
        let tenures = batch.ranges.iter().map(|range| range.tenure).collect();
        let abandon = CancellationToken::new();
        self.current = Some(Current { tenures, abandon: abandon.clone(), started: now });
        let store = parts.store.clone();
        parts.runtime.spawn(async move {
            let batch = Box::new(batch);
            let outcome = insert(&store, &batch, &abandon).await;
            // Nobody listens any more when the consumer has ended.
            drop(reports.send(Report::Inserted { batch, outcome }));
        });
    }

    /// How long the insert that ended took.
    pub(super) fn finish(&mut self, now: Instant) -> Duration {
        self.current.take().map_or(Duration::ZERO, |current| now.duration_since(current.started))
    }

    /// Gives up an insert of which nothing is ours any more: it would hold up what is.
    pub(super) fn abandon_unless_held(&self, partitions: &Partitions) {
        if let Some(current) = &self.current
            && !current.tenures.iter().any(|tenure| partitions.holds(*tenure))
        {
            current.abandon.cancel();
        }
    }

    pub(super) fn abandon(&self) {
        if let Some(current) = &self.current {
            current.abandon.cancel();
        }
    }
}
