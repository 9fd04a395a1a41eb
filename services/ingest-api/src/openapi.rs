//! The API's description. The types here only describe: requests are read by `metering`, answers
//! are written by `answer` and `problem`.

use crate::problem::{PROBLEM_JSON, ProblemCode};
use crate::routes;
use crate::state::ApiState;
use metering::{RejectionCode, event, properties, quantity};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, Response};
use utoipa::{Modify, OpenApi, ToSchema};

static JSON: LazyLock<String> =
    LazyLock::new(|| document().to_pretty_json().expect("the document has only string keys"));

/// The document as it is served.
pub(crate) fn json() -> &'static str {
    &JSON
}

/// The OpenAPI document of this version.
pub fn document() -> utoipa::openapi::OpenApi {
    ApiDocument::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tallymark ingest API",
        version = "1",
        description = "Send usage events to be billed. If an event was answered as accepted, it is counted exactly once.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(routes::post_events, routes::get_limits, routes::get_problem),
    components(schemas(Event, Problem, Refusal)),
    tags(
        (name = "events", description = "Sending usage events"),
        (name = "about", description = "About this service"),
    ),
    modifiers(&Security, &Problems),
)]
struct ApiDocument;

/// One fact of usage.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `metering` reads")]
pub(crate) struct Event {
    /// The producer's id of the event: the same whenever the event is sent again.
    #[schema(min_length = 1, max_length = 255, example = "txn-0000001")]
    transaction_id: String,
    /// The space in which the producer promises unique ids.
    #[schema(max_length = 255, default = "")]
    transaction_scope: Option<String>,
    #[schema(min_length = 1, max_length = 255, example = "customer-1")]
    external_customer_id: String,
    #[schema(max_length = 255, default = "")]
    external_subscription_id: Option<String>,
    /// The billable metric.
    #[schema(min_length = 1, max_length = 128, example = "api_calls")]
    code: String,
    /// When the usage happened (RFC 3339, with an offset). Kept to the millisecond.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00Z")]
    timestamp: String,
    /// The quantity, for metrics that do not read it from a property.
    #[schema(schema_with = quantity_schema, required = false)]
    value: (),
    #[schema(schema_with = properties_schema, required = false)]
    properties: (),
}

fn quantity_schema() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Number))
        .item(ObjectBuilder::new().schema_type(Type::String))
        .description(Some(format!(
            "An exact decimal of at most {} digits before and {} after the decimal point, as a number or as a string",
            quantity::INTEGER_DIGITS,
            quantity::FRACTION_DIGITS
        )))
        .examples([json!("12.5"), json!(12.5)])
        .build()
        .into()
}

fn properties_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
        .max_properties(Some(properties::KEYS_MAX))
        .description(Some(format!(
            "Whatever else is known about the usage: at most {} bytes, {} keys of at most {} bytes, {} levels",
            properties::BYTES_MAX,
            properties::KEYS_MAX,
            properties::KEY_BYTES_MAX,
            properties::DEPTH_MAX
        )))
        .examples([json!({"region": "eu-west-1"})])
        .build()
        .into()
}

/// One event, or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `metering` reads")]
pub(crate) enum EventRequestBody {
    One(Event),
    Several(Events),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `metering` reads")]
pub(crate) struct Events {
    /// At most as many as `GET /v1/limits` says.
    #[schema(min_items = 1, max_items = 10_000)]
    events: Vec<Event>,
}

/// What became of each event, in the order of the request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `answer` writes")]
pub(crate) struct Acknowledgement {
    #[schema(minimum = 0)]
    accepted: u32,
    #[schema(minimum = 0)]
    rejected: u32,
    #[schema(minimum = 0)]
    duplicates: u32,
    events: Vec<EventOutcome>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `answer` writes")]
pub(crate) struct EventOutcome {
    /// Position in the request, from zero.
    #[schema(minimum = 0)]
    index: u32,
    /// Absent when it could not be read.
    transaction_id: Option<String>,
    status: EventStatus,
    /// Why it was rejected. New codes may be added.
    #[schema(schema_with = rejection_code_schema, required = false)]
    code: (),
    /// JSON Pointer (RFC 6901) into the request body, for rejected events.
    pointer: Option<String>,
    /// What is wrong and how to fix it, for rejected events.
    detail: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `answer` writes")]
pub(crate) enum EventStatus {
    /// Durable.
    Accepted,
    /// The same event stands earlier in the request.
    Duplicate,
    /// Not stored.
    Rejected,
}

fn rejection_code_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(RejectionCode::ALL.map(RejectionCode::as_str)))
        .build()
        .into()
}

fn problem_code_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(ProblemCode::ALL.map(ProblemCode::as_str)))
        .build()
        .into()
}

/// A refused request (RFC 9457).
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `problem` writes")]
struct Problem {
    /// Where the problem is explained, relative to this service.
    #[schema(example = "/problems/rate_limited")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// New codes may be added.
    #[schema(schema_with = problem_code_schema)]
    code: (),
    request_id: String,
    /// For 413.
    limit_bytes: Option<u64>,
    /// For 413.
    limit_compressed_bytes: Option<u64>,
    /// For 413.
    limit_events: Option<u32>,
}

/// A refusal of every event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `problem` and `answer` write")]
struct Refusal {
    #[schema(example = "/problems/no_event_accepted")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    #[schema(schema_with = problem_code_schema)]
    code: (),
    request_id: String,
    accepted: u32,
    rejected: u32,
    duplicates: u32,
    events: Vec<EventOutcome>,
}

/// What a request may hold at most.
#[derive(Serialize, ToSchema)]
pub(crate) struct Limits {
    events_per_request: usize,
    body_bytes: usize,
    compressed_body_bytes: usize,
    events_per_second: u32,
    events_burst: u32,
    id_bytes: usize,
    code_bytes: usize,
    properties_bytes: usize,
    properties_depth: usize,
    properties_keys: usize,
    value_integer_digits: u32,
    value_fraction_digits: u32,
    timestamp_age_seconds: i64,
    timestamp_ahead_seconds: i64,
}

impl Limits {
    pub(crate) fn of(state: &ApiState) -> Self {
        Self {
            events_per_request: state.body_limits.events_max,
            body_bytes: state.body_limits.bytes_max,
            compressed_body_bytes: state.body_limits.compressed_bytes_max,
            events_per_second: state.rate_limiter.per_second(),
            events_burst: state.rate_limiter.burst(),
            id_bytes: event::ID_BYTES_MAX,
            code_bytes: event::CODE_BYTES_MAX,
            properties_bytes: properties::BYTES_MAX,
            properties_depth: properties::DEPTH_MAX,
            properties_keys: properties::KEYS_MAX,
            value_integer_digits: quantity::INTEGER_DIGITS,
            value_fraction_digits: quantity::FRACTION_DIGITS,
            timestamp_age_seconds: state.rules.max_age.num_seconds(),
            timestamp_ahead_seconds: state.rules.max_ahead.num_seconds(),
        }
    }
}

/// What a problem means.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemDescription {
    code: &'static str,
    status: u16,
    title: &'static str,
    /// What to do.
    advice: &'static str,
    /// Whether sending the same request again can succeed.
    retryable: bool,
}

impl ProblemDescription {
    pub(crate) fn of(code: ProblemCode) -> Self {
        let meaning = code.meaning();
        Self {
            code: code.as_str(),
            status: meaning.status.as_u16(),
            title: meaning.title,
            advice: meaning.advice,
            retryable: meaning.retryable,
        }
    }
}

/// Adds the API key.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key with the scope `ingest`"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    }
}

/// Adds the refusals, from the list that they are written from.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut by_status: BTreeMap<u16, Vec<ProblemCode>> = BTreeMap::new();
        for code in ProblemCode::ALL {
            by_status.entry(code.meaning().status.as_u16()).or_default().push(code);
        }
        let every = by_status
            .into_iter()
            .map(|(status, codes)| (status.to_string(), refusal(&codes)))
            .collect::<Vec<_>>();
        let operations = [
            ("/v1/events", HttpMethod::Post),
            ("/v1/limits", HttpMethod::Get),
            ("/problems/{code}", HttpMethod::Get),
        ];
        for (path, method) in operations {
            let item = document.paths.paths.get_mut(path).expect("the path is documented");
            let operation =
                if method == HttpMethod::Post { item.post.as_mut() } else { item.get.as_mut() };
            let responses =
                &mut operation.expect("the operation is documented").responses.responses;
            let answers = every.iter().filter(|(status, _)| match (path, status.as_str()) {
                (_, "405" | "500") => true,
                ("/v1/events", status) => status != "404",
                ("/problems/{code}", status) => status == "404",
                _ => false,
            });
            responses.extend(answers.cloned());
        }
    }
}

fn refusal(codes: &[ProblemCode]) -> RefOr<Response> {
    let lines: Vec<String> = codes
        .iter()
        .map(|code| {
            format!("- `{}`: {}. {}", code.as_str(), code.meaning().title, code.meaning().advice)
        })
        .collect();
    let schema = if codes == [ProblemCode::NoEventAccepted] { "Refusal" } else { "Problem" };
    let mut response =
        ResponseBuilder::new().description(lines.join("\n")).content(PROBLEM_JSON, content(schema));
    if codes.iter().any(|code| code.meaning().retryable) {
        let seconds = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).build();
        response = response.header(
            "Retry-After",
            HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait")).build(),
        );
    }
    response.build().into()
}

fn content(schema: &str) -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build()
}
