//! A client that retries with the same ids until it is told 2xx, and notes in a ledger what it was told.

use crate::event::Event;
use crate::ledger::Ledger;
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Sends events to one API with one key.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
    url: String,
    api_key: String,
}

impl Sender {
    /// # Panics
    /// When no HTTP client can be built.
    pub fn new(url: &str, api_key: &str) -> Self {
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .expect("a plain HTTP client");
        Self { client, url: format!("{url}/v1/events"), api_key: api_key.to_owned() }
    }

    /// One attempt; the answer, or the reason there was none.
    pub fn post(&self, events: &[Event]) -> Result<Response, String> {
        let events: Vec<Value> = events.iter().map(Event::to_json).collect();
        let request = self
            .client
            .post(&self.url)
            .bearer_auth(&self.api_key)
            .json(&json!({ "events": events }));
        request.send().map_err(|e| e.to_string())
    }

    /// Sends `events` again and again until the API confirms them, and notes them in `ledger`.
    ///
    /// # Panics
    /// When the API refuses one for good, or confirms nothing for [`crate::wait::PATIENCE`].
    pub fn send(&self, events: &[Event], ledger: &mut Ledger) {
        let deadline = Instant::now() + crate::wait::PATIENCE;
        loop {
            let reason = match self.post(events) {
                Ok(response) if response.status() == 200 => {
                    let answer: Value = response.json().unwrap_or(Value::Null);
                    assert_eq!(answer["rejected"], 0, "the API refused an event: {answer}");
                    events.iter().for_each(|event| ledger.accept(event));
                    return;
                }
                Ok(response)
                    if response.status().is_server_error()
                        || response.status() == 429
                        || response.status() == 408 =>
                {
                    response.status().to_string()
                }
                Ok(response) => {
                    panic!("the API answered {}: {:?}", response.status(), response.text())
                }
                Err(reason) => reason,
            };
            assert!(Instant::now() < deadline, "the API confirmed nothing: {reason}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
