//! What the service counts, in the process's Prometheus registry. Per batch or second, never per event.

use crate::batch::Tally;
use event_log::PartitionId;
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_histogram,
    register_int_counter, register_int_counter_vec, register_int_gauge, register_int_gauge_vec,
};
use std::sync::LazyLock;
use std::time::Duration;

const REGISTERED_ONCE: &str = "each metric is registered once, under a valid name";
const SECONDS_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
const ROWS_BUCKETS: [f64; 11] = [
    1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0, 100_000.0,
];

static RECORDS: LazyLock<[IntCounter; 4]> = LazyLock::new(|| {
    let vec = register_int_counter_vec!(
        "tallymark_consumer_records_total",
        "Records of the log whose batch was inserted, by what became of them",
        &["outcome"]
    );
    let vec: IntCounterVec = vec.expect(REGISTERED_ONCE);
    ["stored", "duplicate", "conflict", "dead_letter"]
        .map(|outcome| vec.with_label_values(&[outcome]))
});

static BATCH_ROWS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "tallymark_consumer_batch_rows",
        "Usage rows of an inserted batch",
        ROWS_BUCKETS.to_vec()
    )
    .expect(REGISTERED_ONCE)
});

static INSERT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "tallymark_consumer_insert_seconds",
        "Time until a batch was confirmed, retries included",
        SECONDS_BUCKETS.to_vec()
    )
    .expect(REGISTERED_ONCE)
});

static QUERYABLE_LAG_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "tallymark_consumer_queryable_lag_seconds",
        "Time from the acceptance of a batch's oldest event until the batch can be queried",
        SECONDS_BUCKETS.to_vec()
    )
    .expect(REGISTERED_ONCE)
});

static INSERT_RETRIES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "tallymark_consumer_insert_retries_total",
        "Inserts that were not confirmed and are sent again"
    )
    .expect(REGISTERED_ONCE)
});

static COMMIT_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("tallymark_consumer_commit_failures_total", "Commits that failed for now")
        .expect(REGISTERED_ONCE)
});

static REBUILDS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "tallymark_consumer_index_rebuilds_total",
        "Dedup indexes that were read back from the store"
    )
    .expect(REGISTERED_ONCE)
});

static LAG: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "tallymark_consumer_lag_records",
        "Records of the log that are not decided yet",
        &["partition"]
    )
    .expect(REGISTERED_ONCE)
});

static INDEX_IDS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("tallymark_consumer_dedup_ids", "Event ids that are remembered")
        .expect(REGISTERED_ONCE)
});

static INDEX_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("tallymark_consumer_dedup_bytes", "Memory of the dedup indexes")
        .expect(REGISTERED_ONCE)
});

static INDEX_BYTES_MAX: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!(
        "tallymark_consumer_dedup_limit_bytes",
        "Memory that the dedup indexes may take"
    )
    .expect(REGISTERED_ONCE)
});

static HORIZON_SECONDS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!(
        "tallymark_consumer_dedup_horizon_seconds",
        "How long an event id is remembered at least"
    )
    .expect(REGISTERED_ONCE)
});

/// A batch was confirmed after `took`; its oldest event had been accepted `lag` before.
pub(crate) fn inserted(tally: &Tally, took: Duration, lag: Option<Duration>) {
    for (counter, count) in
        RECORDS.iter().zip([tally.stored, tally.duplicates, tally.conflicts, tally.dead_letters])
    {
        counter.inc_by(count);
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of rows below 2⁵³, for a histogram")]
    BATCH_ROWS.observe(tally.stored as f64);
    INSERT_SECONDS.observe(took.as_secs_f64());
    if let Some(lag) = lag {
        QUERYABLE_LAG_SECONDS.observe(lag.as_secs_f64());
    }
}

pub(crate) fn insert_retried() {
    INSERT_RETRIES.inc();
}

pub(crate) fn commit_failed() {
    COMMIT_FAILURES.inc();
}

pub(crate) fn rebuilt() {
    REBUILDS.inc();
}

pub(crate) fn lag(partition: PartitionId, records: u64) {
    LAG.with_label_values(&[&partition.to_string()]).set(gauge(records));
}

/// The partition is somebody else's to report.
pub(crate) fn forget_lag(partition: PartitionId) {
    // An error means that it was never reported.
    drop(LAG.remove_label_values(&[&partition.to_string()]));
}

pub(crate) fn index(ids: usize, bytes: usize) {
    INDEX_IDS.set(gauge(ids));
    INDEX_BYTES.set(gauge(bytes));
}

pub(crate) fn index_limits(horizon: Duration, bytes_max: usize) {
    HORIZON_SECONDS.set(gauge(horizon.as_secs()));
    INDEX_BYTES_MAX.set(gauge(bytes_max));
}

fn gauge<N: TryInto<i64>>(number: N) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
