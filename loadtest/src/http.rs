//! HTTP/1.1 over one kept connection at a time.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use service_kit::secret::Secret;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read whole; the API's longest lists 10,000 events.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a server is, from a URL such as `http://user:password@127.0.0.1:8123/?database=tallymark`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port`.
    pub authority: String,
    /// Without a slash at the end; empty for the root.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub user: Option<String>,
    pub password: Option<Secret>,
}

impl Endpoint {
    /// Only plain `http`: the generator stands beside what it measures.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| "the URL is not one".to_owned())?;
        if uri.scheme_str() != Some("http") {
            bail!("the URL has to start with http://");
        }
        let authority = uri.authority().ok_or_else(|| anyhow!("the URL names no host"))?.as_str();
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let (user, password) =
            match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
                Some((user, password)) => {
                    (Some(percent_decoded(user)?), Some(Secret::new(percent_decoded(password)?)))
                }
                None => (None, None),
            };
        let port = if uri.port().is_some() { "" } else { ":80" };
        let query =
            form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).into_owned().collect();
        Ok(Self {
            authority: format!("{host}{port}"),
            path: uri.path().trim_end_matches('/').to_owned(),
            query,
            user,
            password,
        })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with an error that the sender reports too.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn percent_decoded(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .ok_or_else(|| anyhow!("the URL ends within a % escape"))?;
        bytes.push(
            u8::from_str_radix(hex, 16)
                .context("the URL has a % escape that is not hexadecimal")?,
        );
        rest = &after[2..];
    }
    String::from_utf8(bytes).context("the user name or password of the URL is not UTF-8")
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    /// Of the header, if it is a number of seconds.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// A connection that is opened when needed and kept while it works.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sender: None }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends `request` and waits for the head of the answer. After an error it is not known whether
    /// the request was carried out, and the next one gets a new connection.
    ///
    /// A future that is dropped before it ends closes the connection too.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut kept = self.sender.take();
        let usable = match &mut kept {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        let mut sender = match kept {
            Some(sender) if usable => sender,
            _ => self.endpoint.connect().await?,
        };
        let response = sender.send_request(request).await?;
        self.sender = Some(sender);
        Ok(response)
    }

    /// [`Client::send`], and reads the answer whole.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answered> {
        let response = self.send(request).await?;
        let sender = self.sender.take();
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|text| text.to_str().ok()?.parse().ok());
        let body =
            http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!(error).context("reading the answer"))?.to_bytes();
        self.sender = sender;
        Ok(Answered { status, retry_after: retry_after.map(Duration::from_secs), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_carry_users_databases_and_ports() {
        let endpoint =
            Endpoint::parse("http://tallymark_reader:p%40ss%3A@127.0.0.1:8123/?database=tallymark")
                .unwrap();
        assert_eq!((endpoint.authority.as_str(), endpoint.path.as_str()), ("127.0.0.1:8123", ""));
        assert_eq!(endpoint.user.as_deref(), Some("tallymark_reader"));
        assert_eq!(endpoint.password.unwrap().expose(), "p@ss:");
        assert_eq!(endpoint.query, [("database".to_owned(), "tallymark".to_owned())]);
        let endpoint = Endpoint::parse("http://localhost/base/").unwrap();
        assert_eq!(
            (endpoint.authority.as_str(), endpoint.path.as_str()),
            ("localhost:80", "/base")
        );
        assert!(endpoint.user.is_none());
    }

    #[test]
    fn urls_that_cannot_work_are_refused() {
        for url in [
            "https://localhost",
            "localhost:8080",
            "",
            "http://a%4:b@localhost",
            "http://a%zz:b@localhost",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
