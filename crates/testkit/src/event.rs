//! Events as a client would send them, and what the store must then hold.

use serde_json::{Value, json};

/// An event to send. Everything a billing row must repeat is here as text, so that no code of the
/// pipeline is needed to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub transaction_id: String,
    pub external_customer_id: String,
    pub code: &'static str,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// A whole quantity, for `tokens`; `None` for `api_calls`.
    pub value: Option<i64>,
}

impl Event {
    /// A count of the demo metric `api_calls`.
    pub fn api_call(transaction_id: impl Into<String>, timestamp_ms: i64) -> Self {
        Self {
            transaction_id: transaction_id.into(),
            external_customer_id: "customer-1".to_owned(),
            code: "api_calls",
            timestamp_ms,
            value: None,
        }
    }

    /// A quantity of the demo metric `tokens`, which sums `properties.tokens`.
    pub fn tokens(transaction_id: impl Into<String>, timestamp_ms: i64, tokens: i64) -> Self {
        Self { value: Some(tokens), code: "tokens", ..Self::api_call(transaction_id, timestamp_ms) }
    }

    pub fn to_json(&self) -> Value {
        let mut event = json!({
            "transaction_id": self.transaction_id,
            "external_customer_id": self.external_customer_id,
            "code": self.code,
            "timestamp": chrono::DateTime::from_timestamp_millis(self.timestamp_ms).expect("a valid instant").to_rfc3339(),
        });
        if let Some(tokens) = self.value {
            event["properties"] = json!({ "tokens": tokens });
        }
        event
    }

    /// The payload as `ledger::PAYLOAD_SQL` reads it back.
    pub fn payload(&self) -> String {
        let value = self.value.map_or_else(|| "none".to_owned(), |v| v.to_string());
        format!("{}|{}|{}|{value}", self.external_customer_id, self.code, self.timestamp_ms)
    }
}

/// The time now in milliseconds since 1970, by the test's own clock.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("it is before the year 292 million")
}
