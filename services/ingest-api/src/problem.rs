//! Refusals of whole requests: the only file with HTTP status codes. RFC 9457 bodies.

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use fault_injection::InjectedFault;
use std::borrow::Cow;
use std::fmt::Write as _;

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
const PROBLEM_JSON_VALUE: HeaderValue = HeaderValue::from_static(PROBLEM_JSON);

/// What is wrong with a request as a whole. The texts are part of the API contract and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    MalformedJson,
    InvalidUtf8,
    InvalidRequest,
    MalformedEncoding,
    IncompleteBody,
    MissingApiKey,
    InvalidApiKey,
    ApiKeyRevoked,
    ApiKeyExpired,
    InsufficientScope,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    TooManyEvents,
    UnsupportedMediaType,
    UnsupportedContentEncoding,
    NoEventAccepted,
    RateLimited,
    InternalError,
    PublishUnconfirmed,
    PublishQueueFull,
    ConfigurationUnavailable,
    Overloaded,
}

/// What a code means to the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    /// What the client should do.
    pub(crate) advice: &'static str,
    /// Whether sending the same request again can succeed; such answers carry `Retry-After`.
    pub(crate) retryable: bool,
}

impl ProblemCode {
    pub const ALL: [Self; 24] = [
        Self::MalformedJson,
        Self::InvalidUtf8,
        Self::InvalidRequest,
        Self::MalformedEncoding,
        Self::IncompleteBody,
        Self::MissingApiKey,
        Self::InvalidApiKey,
        Self::ApiKeyRevoked,
        Self::ApiKeyExpired,
        Self::InsufficientScope,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::TooManyEvents,
        Self::UnsupportedMediaType,
        Self::UnsupportedContentEncoding,
        Self::NoEventAccepted,
        Self::RateLimited,
        Self::InternalError,
        Self::PublishUnconfirmed,
        Self::PublishQueueFull,
        Self::ConfigurationUnavailable,
        Self::Overloaded,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidRequest => "invalid_request",
            Self::MalformedEncoding => "malformed_encoding",
            Self::IncompleteBody => "incomplete_body",
            Self::MissingApiKey => "missing_api_key",
            Self::InvalidApiKey => "invalid_api_key",
            Self::ApiKeyRevoked => "api_key_revoked",
            Self::ApiKeyExpired => "api_key_expired",
            Self::InsufficientScope => "insufficient_scope",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TooManyEvents => "too_many_events",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnsupportedContentEncoding => "unsupported_content_encoding",
            Self::NoEventAccepted => "no_event_accepted",
            Self::RateLimited => "rate_limited",
            Self::InternalError => "internal_error",
            Self::PublishUnconfirmed => "publish_unconfirmed",
            Self::PublishQueueFull => "publish_queue_full",
            Self::ConfigurationUnavailable => "configuration_unavailable",
            Self::Overloaded => "overloaded",
        }
    }

    /// Finds a code by its text.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    #[expect(clippy::too_many_lines, reason = "a table, one entry for each code")]
    pub(crate) const fn meaning(self) -> Meaning {
        match self {
            Self::MalformedJson => permanent(
                StatusCode::BAD_REQUEST,
                "The body is not JSON",
                "Send one valid JSON text.",
            ),
            Self::InvalidUtf8 => permanent(
                StatusCode::BAD_REQUEST,
                "The body is not UTF-8",
                "Encode the body as UTF-8.",
            ),
            Self::InvalidRequest => permanent(
                StatusCode::BAD_REQUEST,
                "The body is not a request for events",
                "Send one event object, or {\"events\": [...]} with at least one event.",
            ),
            Self::MalformedEncoding => permanent(
                StatusCode::BAD_REQUEST,
                "The body cannot be decompressed",
                "Send a complete stream of the announced Content-Encoding.",
            ),
            Self::IncompleteBody => permanent(
                StatusCode::BAD_REQUEST,
                "The body ended early",
                "Send the whole body; nothing of it was stored.",
            ),
            Self::MissingApiKey => permanent(
                StatusCode::UNAUTHORIZED,
                "No API key was sent",
                "Send the header `Authorization: Bearer <API key>`.",
            ),
            Self::InvalidApiKey => permanent(
                StatusCode::UNAUTHORIZED,
                "The API key is not valid",
                "Check the key, or create a new one.",
            ),
            Self::ApiKeyRevoked => {
                permanent(StatusCode::UNAUTHORIZED, "The API key was revoked", "Use another key.")
            }
            Self::ApiKeyExpired => {
                permanent(StatusCode::UNAUTHORIZED, "The API key has expired", "Create a new key.")
            }
            Self::InsufficientScope => permanent(
                StatusCode::FORBIDDEN,
                "The API key may not send events",
                "Use a key with the scope `ingest`.",
            ),
            Self::NotFound => permanent(
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "The paths are listed in /openapi.json.",
            ),
            Self::MethodNotAllowed => permanent(
                StatusCode::METHOD_NOT_ALLOWED,
                "The method is not allowed here",
                "Use a method named in the header Allow.",
            ),
            Self::BodyTimeout => again(
                StatusCode::REQUEST_TIMEOUT,
                "The body did not arrive in time",
                "Send it again over a faster connection, or in smaller requests; nothing of it was stored.",
            ),
            Self::BodyTooLarge => permanent(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
                "Split the events over several requests.",
            ),
            Self::TooManyEvents => permanent(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request has too many events",
                "Split the events over several requests.",
            ),
            Self::UnsupportedMediaType => permanent(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The media type is not supported",
                "Send `Content-Type: application/json` in UTF-8.",
            ),
            Self::UnsupportedContentEncoding => permanent(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The content encoding is not supported",
                "Compress with gzip or zstd, once, or not at all.",
            ),
            Self::NoEventAccepted => permanent(
                StatusCode::UNPROCESSABLE_ENTITY,
                "No event was accepted",
                "Correct the events as each `detail` says; nothing was stored.",
            ),
            Self::RateLimited => again(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many events",
                "Wait as Retry-After says, then send the request again; nothing of it was stored.",
            ),
            Self::InternalError => again(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The service has a fault",
                "Retrying with the same transaction_ids is safe; tell the operator the request_id.",
            ),
            Self::PublishUnconfirmed => again(
                StatusCode::SERVICE_UNAVAILABLE,
                "The events may or may not be stored",
                "Send the whole request again: retrying with the same transaction_ids is safe.",
            ),
            Self::PublishQueueFull => again(
                StatusCode::SERVICE_UNAVAILABLE,
                "The log cannot take more events at present",
                "Send the whole request again later: retrying with the same transaction_ids is safe.",
            ),
            Self::ConfigurationUnavailable => again(
                StatusCode::SERVICE_UNAVAILABLE,
                "The API key cannot be checked at present",
                "Send the request again later; nothing of it was stored.",
            ),
            Self::Overloaded => again(
                StatusCode::SERVICE_UNAVAILABLE,
                "The service holds as many requests as it can",
                "Send the request again later; nothing of it was stored.",
            ),
        }
    }
}

const fn permanent(status: StatusCode, title: &'static str, advice: &'static str) -> Meaning {
    Meaning { status, title, advice, retryable: false }
}

const fn again(status: StatusCode, title: &'static str, advice: &'static str) -> Meaning {
    Meaning { status, title, advice, retryable: true }
}

/// A refusal, before it is written out.
#[derive(Clone, Debug)]
pub struct Problem {
    code: ProblemCode,
    detail: Cow<'static, str>,
    /// Further JSON members, as text such as `"limit_events":10000`; empty when there are none.
    members: String,
    retry_after_seconds: u64,
}

impl From<InjectedFault> for Problem {
    fn from(_: InjectedFault) -> Self {
        Self::new(ProblemCode::PublishUnconfirmed)
    }
}

impl Problem {
    /// A refusal whose detail is what the code advises.
    pub fn new(code: ProblemCode) -> Self {
        Self::with_detail(code, code.meaning().advice)
    }

    /// A refusal with a sentence of its own, which never holds internals of the service.
    pub fn with_detail(code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), members: String::new(), retry_after_seconds: 1 }
    }

    /// Adds members to the body, as JSON text without braces.
    pub(crate) fn members(mut self, members: String) -> Self {
        debug_assert!(
            serde_json::from_str::<serde_json::Value>(&format!("{{{members}}}")).is_ok(),
            "the members are JSON"
        );
        self.members = members;
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = seconds.max(1);
        self
    }

    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// The response that `request_id` is answered with.
    pub(crate) fn to_response(&self, request_id: &str) -> Response<Body> {
        let meaning = self.code.meaning();
        let mut response = Response::new(Body::from(self.body(request_id)));
        *response.status_mut() = meaning.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON_VALUE);
        if meaning.retryable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_seconds));
        }
        if let Some((name, value)) = self.header() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The header that the status code calls for.
    const fn header(&self) -> Option<(HeaderName, &'static str)> {
        match self.code {
            ProblemCode::MissingApiKey => {
                Some((header::WWW_AUTHENTICATE, "Bearer realm=\"tallymark\""))
            }
            ProblemCode::InvalidApiKey
            | ProblemCode::ApiKeyRevoked
            | ProblemCode::ApiKeyExpired => Some((
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"tallymark\", error=\"invalid_token\"",
            )),
            ProblemCode::InsufficientScope => Some((
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"tallymark\", error=\"insufficient_scope\", scope=\"ingest\"",
            )),
            ProblemCode::UnsupportedMediaType => Some((header::ACCEPT, "application/json")),
            ProblemCode::UnsupportedContentEncoding => {
                Some((header::ACCEPT_ENCODING, "gzip, zstd"))
            }
            // The rest of the body may still come and would be read as the next request.
            ProblemCode::BodyTimeout | ProblemCode::IncompleteBody => {
                Some((header::CONNECTION, "close"))
            }
            _ => None,
        }
    }

    fn body(&self, request_id: &str) -> String {
        let meaning = self.code.meaning();
        let code = self.code.as_str();
        let mut body = String::with_capacity(256 + self.detail.len() + self.members.len());
        let written = write!(
            body,
            "{{\"type\":\"/problems/{code}\",\"title\":{},\"status\":{},\"detail\":{},\"code\":\"{code}\",\"request_id\":{}",
            json_string(meaning.title),
            meaning.status.as_u16(),
            json_string(&self.detail),
            json_string(request_id),
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        if !self.members.is_empty() {
            body.push(',');
            body.push_str(&self.members);
        }
        body.push('}');
        body
    }
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// Carries the problem to the outermost layer, which knows the request id and writes the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.meaning().status;
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_found_by_their_text() {
        let texts: HashSet<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ProblemCode::ALL.len());
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::from_text(code.as_str()), Some(code));
        }
    }

    #[test]
    fn refusals_that_ask_for_patience_say_how_long() {
        for code in ProblemCode::ALL {
            let response = Problem::new(code).retry_after(7).to_response("r");
            let must = matches!(response.status().as_u16(), 429 | 503);
            let says =
                response.headers().get(header::RETRY_AFTER).is_some_and(|value| value == "7");
            assert!(says || !must, "{}", code.as_str());
        }
    }

    #[test]
    fn bodies_are_json_whatever_the_detail_holds() {
        let problem = Problem::with_detail(ProblemCode::TooManyEvents, "a \"quoted\" \u{7} detail")
            .members("\"limit_events\":10000".to_owned());
        let body: serde_json::Value = serde_json::from_str(&problem.body("id \"1\"")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/problems/too_many_events",
                "title": "The request has too many events",
                "status": 413,
                "detail": "a \"quoted\" \u{7} detail",
                "code": "too_many_events",
                "request_id": "id \"1\"",
                "limit_events": 10000,
            })
        );
    }

    #[test]
    fn no_refusal_is_a_success() {
        for code in ProblemCode::ALL {
            let status = code.meaning().status;
            assert!(status.is_client_error() || status.is_server_error(), "{}", code.as_str());
        }
    }
}
