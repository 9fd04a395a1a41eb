//! The path of a request for events: authenticate → read → rate limit → validate → publish → answer.

use crate::answer::Answer;
use crate::authenticate::authenticate;
use crate::body::{self, BodyLimits, ReadBody, limit_members};
use crate::byte_budget::Reservation;
use crate::media_type;
use crate::problem::{Problem, ProblemCode};
use crate::publish::{RECORD_OVERHEAD_BYTES, publish, records};
use crate::state::ApiState;
use axum::body::Body;
use axum::http::HeaderMap;
use config_store::ConfigError;
use event_log::RecordBatch;
use fault_injection::{Point, reach};
use metering::validate::RequestError;
use metering::{EventRequest, MetricCatalog, validate};
use service_kit::lifecycle::chain;

/// Accepts the events of one request. Returns the answer's JSON once every accepted event is durable.
pub(crate) async fn accept(
    state: &ApiState,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<String, Problem> {
    let organization = authenticate(&state.keys, headers, state.clock.now()).await?;
    reach(Point::RequestAuthenticated)?;
    media_type::require_json(headers)?;
    let catalog = state
        .keys
        .metric_catalog(&organization.organization_id)
        .await
        .map_err(|error| unavailable(&error))?;
    let body = body::read(headers, body, &state.body_limits, &state.budget).await?;
    reach(Point::BodyRead)?;
    let decided = decide(state, &organization.organization_id, &catalog, body)?;
    let Decided { records, answer, reservation } = decided;
    reach(Point::EventsValidated)?;
    publish(&*state.producer, records, state.publish_timeout, &state.failed).await?;
    reach(Point::EventsPublished)?;
    drop(reservation);
    answer.finish()
}

/// A request that was judged, but not yet carried out.
struct Decided {
    /// What to publish; empty when no event was accepted.
    records: RecordBatch,
    /// What to answer once the records are durable.
    answer: Answer,
    /// Kept until then: the records are in memory for as long.
    reservation: Reservation,
}

/// Splits the body into records and an answer. The body is freed before the wait for the log.
fn decide(
    state: &ApiState,
    organization_id: &str,
    catalog: &MetricCatalog,
    body: ReadBody,
) -> Result<Decided, Problem> {
    let ReadBody { bytes, mut reservation } = body;
    let limits = &state.body_limits;
    let request = EventRequest::parse(body::text(&bytes)?, limits.events_max)
        .map_err(|error| refusal(&error, limits))?;
    let count = request.events().len();
    state.rate_limiter.charge(organization_id, count)?;
    // A record repeats its event and adds a few fields, so the records take about the body again.
    let expected = bytes.len() + count * RECORD_OVERHEAD_BYTES;
    reservation.grow_to(bytes.len() + expected).map_err(body::overloaded)?;
    let validated = validate(&request, organization_id, catalog, &state.rules, state.clock.now());
    let records =
        records(&validated.accepted, state.producer.partition_count(), state.topic_epoch, expected);
    Ok(Decided { records, answer: Answer::new(&validated.outcomes), reservation })
}

fn refusal(error: &RequestError, limits: &BodyLimits) -> Problem {
    let code = match error {
        RequestError::MalformedJson { .. } => ProblemCode::MalformedJson,
        RequestError::TooManyEvents { .. } => {
            return Problem::with_detail(ProblemCode::TooManyEvents, error.to_string())
                .members(limit_members(limits));
        }
        RequestError::NotAnObject { .. }
        | RequestError::EventsNotAnArray
        | RequestError::NoEvents
        | RequestError::FieldBesideEvents { .. } => ProblemCode::InvalidRequest,
    };
    Problem::with_detail(code, error.to_string())
}

fn unavailable(error: &ConfigError) -> Problem {
    tracing::warn!(error = chain(error), "the billable metrics of an organization cannot be read");
    Problem::new(ProblemCode::ConfigurationUnavailable)
}
