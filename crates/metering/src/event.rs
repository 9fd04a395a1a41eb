//! A usage event that has passed validation, borrowing from the request or record it came in.

use crate::Quantity;
use crate::properties::Properties;
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use xxhash_rust::xxh3::Xxh3;

/// Longest id (`transaction_id`, `transaction_scope`, customer, subscription), in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 255;
/// Longest billable metric code, in bytes of UTF-8.
pub const CODE_BYTES_MAX: usize = 128;
/// Longest organization id, in bytes of UTF-8.
pub const ORGANIZATION_ID_BYTES_MAX: usize = 64;

/// One accepted fact of usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent<'a> {
    pub organization_id: Cow<'a, str>,
    /// The space in which the producer promises unique transaction ids; empty for native events.
    pub transaction_scope: Cow<'a, str>,
    pub transaction_id: Cow<'a, str>,
    pub external_customer_id: Cow<'a, str>,
    /// Empty when the event names no subscription.
    pub external_subscription_id: Cow<'a, str>,
    pub code: Cow<'a, str>,
    /// When the usage happened, to the millisecond.
    pub timestamp: DateTime<Utc>,
    /// The quantity that `sum`, `max`, `min`, `latest`, `weighted_sum` and `percentile` work on.
    pub value: Option<Quantity>,
    pub properties: Properties<'a>,
    /// When the API accepted the event, to the millisecond.
    pub accepted_at: DateTime<Utc>,
}

impl UsageEvent<'_> {
    /// A hash of everything the producer said about the event, apart from its identity.
    ///
    /// Two copies with equal fingerprints are a duplicate, with different ones a conflict. The order
    /// of keys and the white space in `properties` do not count; `accepted_at` is ours and does not either.
    pub fn payload_fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for part in [&self.external_customer_id, &self.external_subscription_id, &self.code] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&self.timestamp.timestamp_millis().to_le_bytes());
        match self.value {
            Some(quantity) => hasher.update(&quantity.units().to_le_bytes()),
            None => hasher.update(b"no value"),
        }
        hasher.update(&self.properties.fingerprint().to_le_bytes());
        hasher.digest()
    }

    /// The event of the README, for tests and documentation.
    pub fn example() -> UsageEvent<'static> {
        let timestamp =
            DateTime::from_timestamp_millis(1_795_262_400_000).expect("a valid instant");
        UsageEvent {
            organization_id: Cow::Borrowed("org_demo"),
            transaction_scope: Cow::Borrowed(""),
            transaction_id: Cow::Borrowed("txn-0000001"),
            external_customer_id: Cow::Borrowed("customer-1"),
            external_subscription_id: Cow::Borrowed(""),
            code: Cow::Borrowed("api_calls"),
            timestamp,
            value: None,
            properties: Properties::parse(r#"{"region":"eu-west-1"}"#).expect("a small object"),
            accepted_at: timestamp,
        }
    }
}
