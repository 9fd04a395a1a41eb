//! Brings a batch into the store: the same bytes until each table has confirmed them.

use crate::batch::SealedBatch;
use crate::conflict::Conflict;
use crate::metrics;
use fault_injection::{Point, Sabotage, reach, sabotaged};
use service_kit::lifecycle::chain;
use service_kit::retry::Backoff;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use usage_store::{InsertError, Retry, UsageStore};

/// First and longest delay after a failure that may pass by itself.
const SOON: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// First and longest delay while a person has to change something.
const LATER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How an insert ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Every row is stored.
    Confirmed,
    /// It was given up; what is stored is unknown, and harmless.
    Abandoned,
}

/// Sends `batch` until it is confirmed or given up. The events come first and the audit last, so
/// the audit never speaks of rows that are not there.
pub async fn insert(
    store: &UsageStore,
    batch: &SealedBatch,
    abandon: &CancellationToken,
) -> Inserted {
    if sabotaged(Sabotage::CommitPastFailure)
        && batch.rows.rows > 0
        && store.insert_events(&batch.rows, &batch.token).await.is_err()
    {
        return Inserted::Abandoned;
    }
    let steps = async {
        step(Point::BatchSealed, || std::future::ready(())).await;
        step(Point::EventsInserted, || insert_events(store, batch)).await;
        step(Point::ConflictsInserted, || insert_conflicts(store, batch)).await;
        step(Point::DeadLettersInserted, || insert_dead_letters(store, batch)).await;
        step(Point::BatchInserted, || insert_audit(store, batch)).await;
    };
    tokio::select! {
        () = steps => Inserted::Confirmed,
        () = abandon.cancelled() => Inserted::Abandoned,
    }
}

/// An insert that fails at its end is one whose answer was lost: it is done again.
async fn step<F: Future<Output = ()>>(end: Point, insert: impl Fn() -> F) {
    insert().await;
    while reach(end).is_err() {
        insert().await;
    }
}

async fn insert_events(store: &UsageStore, batch: &SealedBatch) {
    if batch.rows.rows > 0 {
        until_confirmed(|| store.insert_events(&batch.rows, &batch.token)).await;
    }
}

async fn insert_conflicts(store: &UsageStore, batch: &SealedBatch) {
    if !batch.conflicts.is_empty() {
        let rows: Vec<_> = batch.conflicts.iter().map(Conflict::row).collect();
        until_confirmed(|| store.insert_conflicts(&rows)).await;
    }
}

async fn insert_dead_letters(store: &UsageStore, batch: &SealedBatch) {
    if !batch.dead_letters.is_empty() {
        until_confirmed(|| store.insert_dead_letters(&batch.dead_letters)).await;
    }
}

async fn insert_audit(store: &UsageStore, batch: &SealedBatch) {
    until_confirmed(|| store.insert_batches(&batch.audit)).await;
}

fn is_dropped(error: &InsertError) -> bool {
    let refused = matches!(error.code, Some(164 | 192 | 193 | 194 | 497 | 516));
    sabotaged(Sabotage::DropAfterFailedInsert)
        || (refused && sabotaged(Sabotage::RefusalIsRejection))
}

/// Every error is retried, for ever: none means that rows may be dropped.
async fn until_confirmed<F: Future<Output = Result<(), InsertError>>>(attempt: impl Fn() -> F) {
    let mut soon = Backoff::new(SOON.0, SOON.1);
    let mut later = Backoff::new(LATER.0, LATER.1);
    let mut reported = false;
    while let Err(error) = attempt().await {
        if is_dropped(&error) {
            return;
        }
        metrics::insert_retried();
        let delay = match error.retry {
            Retry::SameBytes => {
                tracing::warn!(
                    table = error.table,
                    error = chain(&error),
                    "an insert was not confirmed, the same bytes are sent again"
                );
                soon.next_delay()
            }
            Retry::NeedsOperator => {
                if !reported {
                    tracing::error!(
                        table = error.table,
                        code = error.code,
                        error = chain(&error),
                        "ClickHouse refuses a batch until somebody changes it; nothing is dropped, and consumption waits"
                    );
                    reported = true;
                }
                later.next_delay()
            }
        };
        tokio::time::sleep(delay).await;
    }
}
