//! What the scheduled reconciliation counts, in the process's Prometheus registry.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, register_int_counter_vec, register_int_gauge,
};
use std::sync::LazyLock;

const REGISTERED_ONCE: &str = "each metric is registered once, under a valid name";

static RUNS: LazyLock<[IntCounter; 3]> = LazyLock::new(|| {
    let vec: IntCounterVec = register_int_counter_vec!(
        "tallymark_reconcile_runs_total",
        "Reconciliations, by outcome",
        &["outcome"]
    )
    .expect(REGISTERED_ONCE);
    ["passed", "failed", "not_checked"].map(|outcome| vec.with_label_values(&[outcome]))
});

static LAST_SUCCESS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!(
        "tallymark_reconcile_last_success_timestamp_seconds",
        "When a reconciliation passed last, in seconds since 1970"
    )
    .expect(REGISTERED_ONCE)
});

static DIFFERENCE: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!(
        "tallymark_reconcile_difference_records",
        "Records missing or too much in the last reconciliation, summed over all organizations and hours without their signs"
    )
    .expect(REGISTERED_ONCE)
});

/// How a scheduled reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    NotChecked,
}

/// Registers the metrics, so that they are there before the first run.
pub(crate) fn register() {
    LazyLock::force(&RUNS);
    LazyLock::force(&LAST_SUCCESS);
    LazyLock::force(&DIFFERENCE);
}

pub(crate) fn ran(outcome: Outcome, at_seconds: i64) {
    let index = match outcome {
        Outcome::Passed => 0,
        Outcome::Failed => 1,
        Outcome::NotChecked => 2,
    };
    RUNS[index].inc();
    if outcome == Outcome::Passed {
        LAST_SUCCESS.set(at_seconds);
    }
}

pub(crate) fn difference(records: i64) {
    DIFFERENCE.set(records);
}
