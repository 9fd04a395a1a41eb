//! The outermost layer: request id, panics, refusals written out, security headers.

use crate::metrics;
use crate::problem::{Problem, ProblemCode};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Response};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use tracing::Instrument as _;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// What a browser may do with an answer that is no page: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// The documentation page runs its own scripts, and nothing from elsewhere.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Wraps every request.
pub(crate) async fn observe(request: Request, next: Next) -> Response<Body> {
    let request_id = request_id(request.headers());
    let page = request.uri().path().starts_with("/docs");
    let span = tracing::info_span!("request", %request_id);
    // A panic is a bug of ours in one request; the others, and what they were promised, are not affected.
    let mut response =
        match AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await {
            Ok(response) => response,
            Err(_) => {
                metrics::panicked();
                tracing::error!(%request_id, "a request ended in a panic");
                Problem::new(ProblemCode::InternalError).into_response()
            }
        };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        metrics::problem(problem.code());
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.to_response(&request_id);
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    let headers = response.headers_mut();
    headers.insert(
        REQUEST_ID,
        HeaderValue::try_from(request_id).expect("a request id is plain ASCII"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, if page { PAGE_POLICY } else { POLICY });
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The client's id when it is short and plain, else a new one. It is repeated in logs, so nothing
/// that could forge a log line passes.
fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    sent.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, sent.parse().unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_plain_id_of_the_client_is_kept() {
        assert_eq!(of("req_1.a-B"), "req_1.a-B");
        assert_eq!(of(&"a".repeat(64)), "a".repeat(64));
    }

    #[test]
    fn any_other_id_is_replaced() {
        for bad in ["", "a b", "a\"b", "<script>", &"a".repeat(65)] {
            assert_eq!(Uuid::parse_str(&of(bad)).unwrap().get_version_num(), 7, "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
