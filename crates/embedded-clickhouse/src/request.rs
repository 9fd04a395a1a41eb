//! An HTTP request taken apart: credentials, settings, parameters, statement.

use crate::access::Credentials;
use crate::config::{BUFFERED_BYTES_MAX, PEER_SILENCE, SQL_BYTES_MAX};
use crate::exception::{BAD_ARGUMENTS, Exception, NETWORK_ERROR, SOCKET_TIMEOUT};
use crate::framing::too_large;
use axum::body::{Body, BodyDataStream};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

/// What URL and headers say.
#[derive(Debug)]
pub struct Head {
    pub credentials: Credentials,
    /// The `query` parameter.
    pub sql: Option<String>,
    pub database: Option<String>,
    /// The format of results whose statement names none.
    pub default_format: String,
    /// Parameters that may be settings, not checked yet.
    pub settings: Vec<(String, String)>,
    /// Values for `{name:Type}` in the statement.
    pub parameters: Vec<(String, String)>,
    /// The body is in native compressed blocks.
    pub decompress: bool,
    /// The answer is wanted in native compressed blocks.
    pub compress: bool,
    pub query_id: Option<String>,
    /// A GET, which may not change anything.
    pub read_only: bool,
    pub content_encoding: Option<String>,
    /// The boundary of a multipart body.
    pub boundary: Option<String>,
}

impl Head {
    pub fn parse(parts: &Parts) -> Result<Self, Exception> {
        let header = |name: &str| header_text(&parts.headers, name);
        let boundary = header(header::CONTENT_TYPE.as_str())
            .filter(|kind| kind.starts_with("multipart/"))
            .map(multer::parse_boundary)
            .transpose()
            .map_err(|error| Exception::new(BAD_ARGUMENTS, error))?;
        let mut head = Self {
            credentials: Credentials { user: String::new(), password: String::new() },
            sql: None,
            database: header("X-ClickHouse-Database"),
            default_format: header("X-ClickHouse-Format")
                .unwrap_or_else(|| "TabSeparated".to_owned()),
            settings: Vec::new(),
            parameters: Vec::new(),
            decompress: false,
            compress: false,
            query_id: None,
            read_only: parts.method != Method::POST,
            content_encoding: header(header::CONTENT_ENCODING.as_str()),
            boundary,
        };
        let (mut user, mut password) = (None, None);
        let url = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(url.as_bytes()).into_owned() {
            match name.as_str() {
                "user" => user = Some(value),
                "password" => password = Some(value),
                _ => head.take(name, value)?,
            }
        }
        head.credentials = Credentials::find(&parts.headers, user, password);
        Ok(head)
    }

    fn take(&mut self, name: String, value: String) -> Result<(), Exception> {
        match name.as_str() {
            "query" => self.sql = Some(value),
            "database" => self.database = Some(value),
            "default_format" => self.default_format = value,
            "decompress" => self.decompress = flag(&name, &value)?,
            "compress" => self.compress = flag(&name, &value)?,
            "query_id" => self.query_id = Some(value),
            // The role follows from the user; a request for another would silently not get it.
            "role" => return Err(Exception::new(BAD_ARGUMENTS, "roles cannot be chosen here")),
            _ => match name.strip_prefix("param_") {
                Some(parameter) => self.parameters.push((parameter.to_owned(), value)),
                None => self.settings.push((name, value)),
            },
        }
        Ok(())
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn flag(name: &str, value: &str) -> Result<bool, Exception> {
    match value {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err(Exception::new(BAD_ARGUMENTS, format_args!("{name} is 0 or 1"))),
    }
}

/// The next piece of a body. A client that is silent for too long has left.
pub async fn next_piece(body: &mut BodyDataStream) -> Result<Option<Bytes>, Exception> {
    match tokio::time::timeout(PEER_SILENCE, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            Err(Exception::new(NETWORK_ERROR, format_args!("the body was cut off: {error}")))
        }
        Err(_) => Err(Exception::new(SOCKET_TIMEOUT, "the client stopped sending its body")),
    }
}

/// A whole body, of at most [`BUFFERED_BYTES_MAX`] bytes.
pub async fn collect(body: Body) -> Result<Bytes, Exception> {
    let mut body = body.into_data_stream();
    let Some(first) = next_piece(&mut body).await? else { return Ok(Bytes::new()) };
    let mut rest = Vec::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if first.len() + rest.len() + piece.len() > BUFFERED_BYTES_MAX {
            return Err(too_large(BUFFERED_BYTES_MAX));
        }
        rest.extend_from_slice(&piece);
    }
    // Most statements arrive in one piece.
    Ok(if rest.is_empty() { first } else { [&first[..], &rest].concat().into() })
}

/// Reads a form: the statement in the field `query`, parameters in fields `param_…`.
pub async fn read_form(body: Bytes, boundary: String, head: &mut Head) -> Result<Bytes, Exception> {
    let malformed = |error: multer::Error| {
        Exception::new(BAD_ARGUMENTS, format_args!("the form is malformed: {error}"))
    };
    let mut form = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(body)]), boundary);
    let mut sql = Vec::new();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "query" {
            sql.extend_from_slice(&field.bytes().await.map_err(malformed)?);
            if sql.len() > SQL_BYTES_MAX {
                return Err(crate::guard::too_long());
            }
        } else if let Some(parameter) = name.strip_prefix("param_") {
            let value = field.text().await.map_err(malformed)?;
            head.parameters.push((parameter.to_owned(), value));
        } else {
            return Err(Exception::new(
                BAD_ARGUMENTS,
                "a form has the fields `query` and `param_…` only",
            ));
        }
    }
    Ok(sql.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> Result<Head, u32> {
        let request = axum::http::Request::builder().uri(uri).body(()).unwrap();
        Head::parse(&request.into_parts().0).map_err(|e| e.code())
    }

    #[test]
    fn the_url_is_sorted_into_what_it_is() {
        let head = head("/?query=SELECT%201&database=d&param_a=1&max_threads=2&decompress=1&user=u&default_format=CSV").unwrap();
        assert_eq!(head.sql.as_deref(), Some("SELECT 1"));
        assert_eq!(head.database.as_deref(), Some("d"));
        assert_eq!(head.parameters, [("a".to_owned(), "1".to_owned())]);
        assert_eq!(head.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert!(head.decompress && head.read_only && !head.compress);
        assert_eq!((head.credentials.user.as_str(), head.default_format.as_str()), ("u", "CSV"));
    }

    #[test]
    fn what_would_be_ignored_to_harm_is_refused() {
        for url in ["/?decompress=yes", "/?role=service"] {
            assert_eq!(head(url).map(drop), Err(BAD_ARGUMENTS), "{url}");
        }
    }

    #[tokio::test]
    async fn a_body_may_have_the_limit_and_no_more() {
        let body = |bytes: usize| {
            let pieces = vec![
                Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024])),
                Ok(vec![b' '; bytes - 1024].into()),
            ];
            collect(Body::from_stream(stream::iter(pieces)))
        };
        assert_eq!(body(BUFFERED_BYTES_MAX).await.map(|b| b.len()), Ok(BUFFERED_BYTES_MAX));
        assert!(body(BUFFERED_BYTES_MAX + 1).await.is_err());
    }

    #[tokio::test]
    async fn a_form_gives_statement_and_parameters() {
        let text = "--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nb\r\n--x--\r\n";
        let mut head = head("/").unwrap();
        let sql = read_form(Bytes::from(text), "x".to_owned(), &mut head).await.unwrap();
        assert_eq!(sql, "SELECT {a:String}");
        assert_eq!(head.parameters, [("a".to_owned(), "b".to_owned())]);
        let other = text.replace("param_a", "max_threads");
        assert!(read_form(Bytes::from(other), "x".to_owned(), &mut head).await.is_err());
        assert!(
            read_form(Bytes::from_static(b"SELECT 1"), "x".to_owned(), &mut head).await.is_err()
        );
    }
}
