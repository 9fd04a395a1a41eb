//! SQL as a person would send it: over HTTP, as the read-only user.

use reqwest::blocking::Client;
use std::time::Duration;

/// A read-only connection to ClickHouse.
#[derive(Clone, Debug)]
pub struct Reader {
    client: Client,
    url: String,
}

impl Reader {
    /// `url` names user, password and database, as `CLICKHOUSE_URL` of `demo.env` does.
    ///
    /// # Panics
    /// When no HTTP client can be built.
    pub fn new(url: impl Into<String>) -> Self {
        let client = Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .expect("a plain HTTP client");
        Self { client, url: url.into() }
    }

    /// The answer to `sql` as text, or what the server or the network said against it.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        let response = self
            .client
            .post(&self.url)
            .body(sql.to_owned())
            .send()
            .map_err(|e| format!("{e:?}"))?;
        let status = response.status();
        let text = response.text().map_err(|e| e.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }

    /// The single number that `sql` asks for.
    pub fn number(&self, sql: &str) -> Result<u64, String> {
        let text = self.query(sql)?;
        text.trim().parse().map_err(|_| format!("not a number: {text}"))
    }
}
