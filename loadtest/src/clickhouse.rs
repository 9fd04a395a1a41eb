//! SQL over ClickHouse's HTTP interface, row by row.

use crate::http::{Client, Endpoint};
use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use service_kit::secret::Secret;
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the next part of a result.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const ERROR_BYTES_MAX: usize = 2_000;

/// A connection as one user to one database.
#[derive(Debug)]
pub struct ClickHouse {
    client: Client,
    database: String,
    user: String,
    password: Secret,
}

impl ClickHouse {
    /// The user and password of the URL stand in for those that are not given; so does its
    /// `database` parameter, and `tallymark` if there is none.
    pub fn new(endpoint: Endpoint, user: Option<String>, password: Option<Secret>) -> Self {
        let database = endpoint
            .query
            .iter()
            .find(|(name, _)| name == "database")
            .map_or("tallymark", |(_, value)| value)
            .to_owned();
        let user =
            user.or_else(|| endpoint.user.clone()).unwrap_or_else(|| "tallymark_reader".to_owned());
        let password =
            password.or_else(|| endpoint.password.clone()).unwrap_or_else(|| Secret::new(""));
        Self { client: Client::new(endpoint), database, user, password }
    }

    /// Runs a query that ends in `FORMAT TabSeparated`; `parameters` fill its `{name:Type}`.
    pub async fn rows(
        &mut self,
        sql: &'static str,
        parameters: &[(&str, &str)],
        mut each: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let request = self.request(sql, parameters)?;
        let response = timeout(READ_TIMEOUT, self.client.send(request))
            .await
            .context("ClickHouse does not answer")??;
        let status = response.status();
        let mut body = response.into_body();
        let mut rest = BytesMut::new();
        while let Some(frame) =
            timeout(READ_TIMEOUT, body.frame()).await.context("ClickHouse stopped answering")?
        {
            let Ok(data) = frame?.into_data() else { continue };
            rest.extend_from_slice(&data);
            if status.is_success() {
                take_lines(&mut rest, &mut each)?;
            }
        }
        if !status.is_success() {
            rest.truncate(ERROR_BYTES_MAX);
            bail!("ClickHouse answered {status}: {}", String::from_utf8_lossy(&rest).trim());
        }
        if rest.is_empty() {
            Ok(())
        } else {
            bail!("the last row of ClickHouse's answer has no end")
        }
    }

    /// Runs a query of one row with one number.
    pub async fn number(
        &mut self,
        sql: &'static str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<u64> {
        let mut number = None;
        self.rows(sql, parameters, |row| {
            number = Some(row.parse().with_context(|| format!("not a number: {row:?}"))?);
            Ok(())
        })
        .await?;
        number.context("the query returned no row")
    }

    fn request(
        &self,
        sql: &'static str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("database", &self.database);
        for (name, value) in parameters {
            query.append_pair(&format!("param_{name}"), value);
        }
        let endpoint = self.client.endpoint();
        Ok(Request::post(format!("{}/?{}", endpoint.path, query.finish()))
            .header("host", &endpoint.authority)
            .header("x-clickhouse-user", &self.user)
            .header("x-clickhouse-key", self.password.expose())
            .body(Full::new(Bytes::from_static(sql.as_bytes())))?)
    }
}

fn take_lines(
    rest: &mut BytesMut,
    each: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut done = 0;
    for line in rest.split_inclusive(|byte| *byte == b'\n') {
        let Some(row) = line.strip_suffix(b"\n") else { break };
        done += line.len();
        each(std::str::from_utf8(row).context("a row is not UTF-8")?)?;
    }
    rest.advance(done);
    Ok(())
}

/// The columns of a row in `TabSeparated`.
pub fn columns<const N: usize>(row: &str) -> anyhow::Result<[&str; N]> {
    let mut columns = [""; N];
    let mut count = 0;
    for (i, text) in row.split('\t').enumerate() {
        count = i + 1;
        if let Some(column) = columns.get_mut(i) {
            *column = text;
        }
    }
    if count == N { Ok(columns) } else { bail!("a row of {N} columns has {count}: {row:?}") }
}

/// A column of text without the escapes of `TabSeparated`.
pub fn unescaped(text: &str) -> anyhow::Result<Cow<'_, str>> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next() {
            Some(quoted @ ('\\' | '\'')) => quoted,
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('0') => '\0',
            other => bail!("a column has the unknown escape \\{other:?}: {text:?}"),
        });
    }
    Ok(Cow::Owned(plain))
}

/// A nullable column.
pub fn nullable(text: &str) -> Option<&str> {
    if text == "\\N" { None } else { Some(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_across_chunks() {
        let mut rows = Vec::new();
        let mut rest = BytesMut::new();
        for chunk in ["a\tb", "\nc\td\n", "e", "\t\\N\n"] {
            rest.extend_from_slice(chunk.as_bytes());
            take_lines(&mut rest, &mut |row| {
                rows.push(row.to_owned());
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(rows, ["a\tb", "c\td", "e\t\\N"]);
        assert!(rest.is_empty());
    }

    #[test]
    fn escapes_are_resolved_and_unknown_ones_are_errors() {
        assert!(matches!(unescaped("{\"é\":1}").unwrap(), Cow::Borrowed("{\"é\":1}")));
        let plain = "\\n\n\t\r\u{8}\u{c}\0'é\\";
        assert_eq!(unescaped(r"\\n\n\t\r\b\f\0\'é\\").unwrap(), plain);
        assert!(unescaped(r"\x").is_err());
        assert!(unescaped("\\").is_err());
    }

    #[test]
    fn a_row_of_another_shape_is_an_error() {
        assert_eq!(columns::<2>("a\tb").unwrap(), ["a", "b"]);
        assert!(columns::<2>("a").is_err());
        assert!(columns::<2>("a\tb\tc").is_err());
        assert!(columns::<2>("Code: 241. DB::Exception").is_err());
    }
}
