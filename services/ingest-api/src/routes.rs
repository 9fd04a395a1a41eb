//! The routes of the API, and what each answers.

use crate::accept::accept;
use crate::body;
use crate::metrics;
use crate::observe::observe;
use crate::openapi::{self, Acknowledgement, EventRequestBody, Limits, ProblemDescription};
use crate::problem::{Problem, ProblemCode};
use crate::state::ApiState;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, header};
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Json, middleware};
use service_kit::admin::{self, ProbeSet};
use std::sync::Arc;
use tokio::time::Instant;
use utoipa_swagger_ui::{Config, SwaggerUi};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Everything the service answers.
pub fn router(state: Arc<ApiState>) -> Router {
    metrics::register();
    let probes = ProbeSet {
        live: Arc::new(|| Ok(())),
        ready: Arc::new({
            let state = Arc::clone(&state);
            move || state.unready().map_or(Ok(()), Err)
        }),
    };
    // Without an address of a validator, the page does not send the document to a public one.
    let page = SwaggerUi::new("/docs")
        .config(Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true));
    Router::new()
        .route("/v1/events", post(post_events))
        .route("/v1/limits", get(get_limits))
        .route("/problems/{code}", get(get_problem))
        .route("/openapi.json", get(get_openapi))
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .with_state(state)
        .merge(admin::router(probes))
        .merge(page)
        .fallback(|| async { Problem::new(ProblemCode::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::new(ProblemCode::MethodNotAllowed) })
        .layer(middleware::from_fn(observe))
}

/// Send usage events
///
/// Answered with success once every accepted event is durable. An event is identified by its
/// `transaction_id` (within its `transaction_scope`): sending it again never counts it twice.
/// After an answer of 5xx, or none, send the request again with the same ids.
#[utoipa::path(
    post, path = "/v1/events", tag = "events", operation_id = "postEvents", security(("api_key" = [])),
    request_body(content = EventRequestBody, description = "One event, or several as `events`. May be compressed with gzip or zstd."),
    responses((status = OK, description = "At least one event was accepted, and is durable; the list says which", body = Acknowledgement)),
)]
pub(crate) async fn post_events(
    State(state): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let start = Instant::now();
    let (parts, mut body) = request.into_parts();
    let result = accept(&state, &parts.headers, &mut body).await;
    if result.as_ref().is_err_and(|problem| problem.code() != ProblemCode::BodyTimeout) {
        body::discard(&parts.headers, &mut body, &state.body_limits).await;
    }
    metrics::request_took(start.elapsed());
    let mut response = Response::new(Body::from(result?));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

/// Read the limits
#[utoipa::path(
    get, path = "/v1/limits", tag = "events", operation_id = "getLimits",
    responses((status = OK, description = "What a request may hold at most", body = Limits)),
)]
pub(crate) async fn get_limits(State(state): State<Arc<ApiState>>) -> Json<Limits> {
    Json(Limits::of(&state))
}

/// Read what a problem means
#[utoipa::path(
    get, path = "/problems/{code}", tag = "about", operation_id = "getProblem",
    params(("code" = String, Path, description = "The `code` of a problem")),
    responses((status = OK, description = "What the problem means, and what to do", body = ProblemDescription)),
)]
pub(crate) async fn get_problem(
    Path(code): Path<String>,
) -> Result<Json<ProblemDescription>, Problem> {
    let code = ProblemCode::from_text(&code).ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    Ok(Json(ProblemDescription::of(code)))
}

async fn get_openapi() -> Response<Body> {
    let mut response = Response::new(Body::from(openapi::json()));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
