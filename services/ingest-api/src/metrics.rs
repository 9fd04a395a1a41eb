//! What the service counts, in the process's Prometheus registry.

use crate::problem::ProblemCode;
use metering::RejectionCode;
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, register_histogram, register_int_counter,
    register_int_counter_vec, register_int_gauge,
};
use std::sync::LazyLock;
use std::time::Duration;

const SECONDS_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const REGISTERED_ONCE: &str = "each metric is registered once, under a valid name";

static EVENTS: LazyLock<[IntCounter; 3]> = LazyLock::new(|| {
    let vec = register_int_counter_vec!(
        "tallymark_ingest_events_total",
        "Events by outcome, in answers of all requests",
        &["outcome"]
    )
    .expect(REGISTERED_ONCE);
    ["accepted", "rejected", "duplicate"].map(|outcome| vec.with_label_values(&[outcome]))
});

static REJECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "tallymark_ingest_rejections_total",
        "Rejected events by code",
        &["code"]
    )
    .expect(REGISTERED_ONCE)
});

static PROBLEMS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "tallymark_ingest_problems_total",
        "Refused requests by code",
        &["code"]
    )
    .expect(REGISTERED_ONCE)
});

static REQUEST_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "tallymark_ingest_request_seconds",
        "Time from the headers of POST /v1/events to its answer",
        SECONDS_BUCKETS.to_vec()
    )
    .expect(REGISTERED_ONCE)
});

static PUBLISH_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "tallymark_ingest_publish_seconds",
        "Time until the log confirmed a request's events",
        SECONDS_BUCKETS.to_vec()
    )
    .expect(REGISTERED_ONCE)
});

static BODY_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!(
        "tallymark_ingest_body_bytes_total",
        "Bytes of request bodies after decompression"
    )
    .expect(REGISTERED_ONCE)
});

static BYTES_IN_FLIGHT: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("tallymark_ingest_in_flight_bytes", "Bytes that open requests hold")
        .expect(REGISTERED_ONCE)
});

static PANICS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("tallymark_ingest_panics_total", "Requests that ended in a panic")
        .expect(REGISTERED_ONCE)
});

/// How many events of one answer came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
    pub(crate) duplicates: usize,
}

/// Creates every series, so that a counter that never moved reads zero instead of being absent.
pub(crate) fn register() {
    LazyLock::force(&EVENTS);
    for code in RejectionCode::ALL {
        REJECTIONS.with_label_values(&[code.as_str()]);
    }
    for code in ProblemCode::ALL {
        PROBLEMS.with_label_values(&[code.as_str()]);
    }
    LazyLock::force(&REQUEST_SECONDS);
    LazyLock::force(&PUBLISH_SECONDS);
    LazyLock::force(&BODY_BYTES);
    LazyLock::force(&BYTES_IN_FLIGHT);
    LazyLock::force(&PANICS);
}

pub(crate) fn events(counts: EventCounts) {
    for (counter, count) in EVENTS.iter().zip([counts.accepted, counts.rejected, counts.duplicates])
    {
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

pub(crate) fn rejections(code: RejectionCode, count: u64) {
    REJECTIONS.with_label_values(&[code.as_str()]).inc_by(count);
}

pub(crate) fn problem(code: ProblemCode) {
    PROBLEMS.with_label_values(&[code.as_str()]).inc();
}

pub(crate) fn request_took(elapsed: Duration) {
    REQUEST_SECONDS.observe(elapsed.as_secs_f64());
}

pub(crate) fn publish_took(elapsed: Duration) {
    PUBLISH_SECONDS.observe(elapsed.as_secs_f64());
}

pub(crate) fn body_read(bytes: usize) {
    BODY_BYTES.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
}

pub(crate) fn bytes_in_flight() -> &'static IntGauge {
    &BYTES_IN_FLIGHT
}

pub(crate) fn panicked() {
    PANICS.inc();
}
