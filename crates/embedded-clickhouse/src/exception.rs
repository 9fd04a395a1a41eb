//! A failed statement in ClickHouse's own terms, and the HTTP status of each kind.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Display;

/// Error codes of ClickHouse that this facade gives itself.
pub const BAD_ARGUMENTS: u32 = 36;
pub const CHECKSUM_DOESNT_MATCH: u32 = 40;
pub const SYNTAX_ERROR: u32 = 62;
pub const TIMEOUT_EXCEEDED: u32 = 159;
pub const READONLY: u32 = 164;
pub const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
pub const SOCKET_TIMEOUT: u32 = 209;
pub const NETWORK_ERROR: u32 = 210;
pub const NO_FREE_CONNECTION: u32 = 203;
pub const QUERY_NOT_ALLOWED: u32 = 392;
pub const QUERY_WAS_CANCELLED: u32 = 394;
pub const CANNOT_DECOMPRESS: u32 = 271;
pub const UNKNOWN_COMPRESSION_METHOD: u32 = 89;
pub const ACCESS_DENIED: u32 = 497;
pub const AUTHENTICATION_FAILED: u32 = 516;
pub const TOO_LARGE: u32 = 307;
const UNKNOWN_EXCEPTION: u32 = 1002;

/// What went wrong: a code and `Code: N. DB::Exception: …` as a server would put it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Exception {
    code: u32,
    text: String,
}

impl Exception {
    pub fn new(code: u32, message: impl Display) -> Self {
        Self { code, text: format!("Code: {code}. DB::Exception: {message}") }
    }

    /// From the engine's text; its first code counts.
    pub fn from_engine(text: &str) -> Self {
        let code = text
            .split_once("Code: ")
            .and_then(|(_, rest)| rest.split('.').next()?.trim().parse().ok());
        match code {
            Some(code) => Self { code, text: text.trim_end().to_owned() },
            None => Self::new(UNKNOWN_EXCEPTION, text.trim()),
        }
    }

    pub fn code(&self) -> u32 {
        self.code
    }

    /// The status a server answers with. Clients decide by the code; the status tells proxies and people.
    pub fn status(&self) -> StatusCode {
        match self.code {
            192..=194 | READONLY | ACCESS_DENIED | AUTHENTICATION_FAILED | QUERY_NOT_ALLOWED => {
                StatusCode::FORBIDDEN
            }
            46 | 47 | 50 | 60 | 63 | 65 | 66 | 71 | 73 | 81 | 113 | 115 => StatusCode::NOT_FOUND,
            6
            | 26
            | 27
            | 33
            | BAD_ARGUMENTS
            | 38
            | CHECKSUM_DOESNT_MATCH
            | 41
            | 43
            | 44
            | 53
            | SYNTAX_ERROR
            | 69
            | 70
            | UNKNOWN_COMPRESSION_METHOD
            | 107
            | 117
            | CANNOT_DECOMPRESS
            | 456
            | 457 => StatusCode::BAD_REQUEST,
            57 | 82 => StatusCode::CONFLICT,
            TIMEOUT_EXCEEDED | SOCKET_TIMEOUT => StatusCode::REQUEST_TIMEOUT,
            TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            48 => StatusCode::NOT_IMPLEMENTED,
            TOO_MANY_SIMULTANEOUS_QUERIES | NO_FREE_CONNECTION => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The end of a body that was begun with success: `tag` was announced in the headers, so it cannot be data.
    pub fn trailer(&self, tag: &str) -> String {
        let message = format!("{}\n", self.text);
        format!(
            "\r\n__exception__\r\n{tag}\r\n{message}{} {tag}\r\n__exception__\r\n",
            message.len()
        )
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", self.text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert("X-ClickHouse-Exception-Code", HeaderValue::from(self.code));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_taken_from_the_engines_text() {
        let nested =
            Exception::from_engine("Code: 107. DB::Exception: Code: 26. DB::Exception: no. (X)");
        assert_eq!(nested.code(), 107);
        let bare = Exception::from_engine("out of luck");
        assert_eq!(
            (bare.code(), bare.to_string().as_str()),
            (1002, "Code: 1002. DB::Exception: out of luck")
        );
    }

    #[test]
    fn a_trailer_states_the_length_of_its_message() {
        let trailer = Exception::new(395, "thrown").trailer("abc");
        assert_eq!(
            trailer,
            "\r\n__exception__\r\nabc\r\nCode: 395. DB::Exception: thrown\n33 abc\r\n__exception__\r\n"
        );
    }
}
