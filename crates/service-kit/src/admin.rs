//! The endpoint for operators: liveness, readiness, metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};
use std::fmt;
use std::sync::Arc;

/// Answers `Err` with the reason while something is wrong. Cheap, and never blocks.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What `/health` and `/ready` ask.
#[derive(Clone)]
pub struct ProbeSet {
    /// Whether the process makes progress; a failure means: restart it.
    pub live: Probe,
    /// Whether the process can serve; a failure means: send traffic elsewhere.
    pub ready: Probe,
}

impl fmt::Debug for ProbeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeSet").finish_non_exhaustive()
    }
}

/// `GET /health`, `GET /ready` and `GET /metrics`.
pub fn router(probes: ProbeSet) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

async fn health(State(probes): State<ProbeSet>) -> Response {
    answer((probes.live)())
}

async fn ready(State(probes): State<ProbeSet>) -> Response {
    answer((probes.ready)())
}

fn answer(probe: Result<(), String>) -> Response {
    match probe {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn metrics() -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&prometheus::gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
