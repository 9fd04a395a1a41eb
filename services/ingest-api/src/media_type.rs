//! The media type of a request's body: JSON in UTF-8, said so.

use crate::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, header};

/// Requires `Content-Type: application/json`, once. Other parameters than a charset are ignored.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let only = values.next().filter(|_| values.next().is_none());
    let json = only.and_then(|value| value.to_str().ok()).is_some_and(is_json);
    if json { Ok(()) } else { Err(Problem::new(ProblemCode::UnsupportedMediaType)) }
}

fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf8_passes() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"; v=1",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "application/cloudevents+json",
            "text/json",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn the_header_stands_once() {
        let mut headers = HeaderMap::new();
        assert!(require_json(&headers).is_err());
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(require_json(&headers).is_ok());
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(require_json(&headers).is_err());
    }
}
