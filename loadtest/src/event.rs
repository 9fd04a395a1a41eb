//! The events of a run: each is a pure function of the run and the event's number.
//!
//! So the ledger holds numbers only, and what the store should hold is calculated, not remembered.

use crate::decimal;
use crate::edge::{self, Edge, Variant};
use serde::{Deserialize, Serialize};

/// The first numbers of a run belong to its last request, which drains the pipeline: they have a
/// customer of their own, so that a cheap query tells when all of them are visible.
///
/// 1,000 events reach every partition of the log, unless it has hundreds: of 64 partitions, one is
/// left out with a probability of 10⁻⁵.
pub const DRAIN_EVENTS: u64 = 1_000;

const DIGITS_OF_NUMBER: usize = 10;
/// How many subscriptions a customer has; a third of the events name one of them.
const SUBSCRIPTIONS: u8 = 2;
const UNITS_PER_ONE: i128 = 1_000_000_000_000;

/// How a metric becomes one number, which decides whether its events carry a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    Count,
    Sum,
}

/// A metric that events are sent for. It must exist in the organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    pub code: String,
    pub aggregation: Aggregation,
    /// The property that the metric reads its quantity from; the event's `value` when there is none.
    pub field: Option<String>,
}

/// Everything that the events of a run follow from. It is the first line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Version of the ledger's format.
    pub format: u32,
    /// Part of every transaction id and customer id; no two runs share it.
    pub id: String,
    pub seed: u64,
    /// Milliseconds since 1970; no event is later than its request.
    pub started_at_ms: i64,
    /// Events per second of all organizations, which spaces the timestamps.
    pub rate: u64,
    pub customers: u32,
    /// At least one.
    pub metrics: Vec<Metric>,
    /// The organizations of the API keys, at least one. The name of a single one may be empty when it
    /// is not known.
    pub organizations: Vec<String>,
    /// Share of events that are edge cases, in 10,000ths.
    pub edge_cases: u32,
}

/// An event. The same number in two organizations is two events with one transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Index into [`Run::organizations`].
    pub organization: u16,
    pub number: u64,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Index into [`Run::metrics`].
    pub metric: usize,
    /// Below [`Run::customers`], or equal to it for the events that drain.
    pub customer: u32,
    /// Which of the customer's subscriptions, if the event names one.
    pub subscription: Option<u8>,
    pub timestamp_ms: i64,
    /// In 10⁻¹².
    pub value: Option<i128>,
    edge: Option<Edge>,
    pub(crate) noise: u64,
}

impl Facts {
    /// How the identity is split, if it is one of the confusable ones.
    pub fn variant(&self) -> Option<Variant> {
        match self.edge {
            Some(Edge::Identity(variant)) => Some(variant),
            Some(Edge::Value | Edge::Instant) | None => None,
        }
    }

    /// Whether the event is one of the hard cases.
    pub fn is_edge(&self) -> bool {
        self.edge.is_some()
    }
}

impl Run {
    pub fn facts(&self, id: EventId) -> Facts {
        let EventId { organization, number } = id;
        let noise = mix(self.seed ^ mix(number ^ (u64::from(organization) << 48)));
        if number < DRAIN_EVENTS {
            let facts = self.facts_of(id, noise, index(noise >> 8, self.metrics.len()));
            return Facts { customer: self.customers, ..facts };
        }
        let edge = edge::of(self, id);
        let facts = match edge {
            Some(Edge::Value) => {
                let sums = edge::sums(self).count();
                let metric = edge::sums(self).nth(index(noise >> 8, sums)).expect("a sum exists");
                let facts = self.facts_of(id, noise, metric);
                // One customer gets them all, so that sums leave the range of their parts.
                Facts { customer: 0, value: Some(edge::value(noise)), ..facts }
            }
            Some(Edge::Instant) => {
                let facts = self.facts_of(id, noise, index(noise >> 8, self.metrics.len()));
                Facts { timestamp_ms: edge::instant_ms(self.started_at_ms, noise), ..facts }
            }
            Some(Edge::Identity(_)) | None => {
                self.facts_of(id, noise, index(noise >> 8, self.metrics.len()))
            }
        };
        Facts { edge, ..facts }
    }

    fn facts_of(&self, id: EventId, noise: u64, metric: usize) -> Facts {
        let organizations = u64::try_from(self.organizations.len()).expect("a short list");
        let sent = id.number.saturating_sub(DRAIN_EVENTS).saturating_mul(organizations);
        let sent_ms = sent.saturating_mul(1_000) / self.rate.max(1);
        let sent_ms = i64::try_from(sent_ms).expect("a run is shorter than 292 million years");
        let value = match self.metrics[metric].aggregation {
            Aggregation::Count => None,
            Aggregation::Sum => Some(value(noise)),
        };
        Facts {
            metric,
            customer: below(noise >> 16, self.customers),
            subscription: subscription(noise),
            timestamp_ms: self.started_at_ms + sent_ms - lateness_ms(noise),
            value,
            edge: None,
            noise,
        }
    }

    /// What the copy of event `id` says that lies: another value, or another hour, day or month.
    pub fn changed(&self, id: EventId) -> Facts {
        let facts = self.facts(id);
        match facts.value {
            Some(value) if facts.noise & 0x100 != 0 => {
                Facts { value: Some(edge::changed_value(value)), ..facts }
            }
            _ => {
                let moved = edge::moved_ms(self.started_at_ms, facts.timestamp_ms, facts.noise);
                Facts { timestamp_ms: moved, ..facts }
            }
        }
    }

    /// What all customer ids of the run start with.
    pub fn customer_prefix(&self) -> String {
        format!("load-{}-c", self.id)
    }

    pub fn customer_id(&self, customer: u32) -> String {
        format!("load-{}-c{customer:06}", self.id)
    }

    pub fn customer_of(&self, customer_id: &str) -> Option<u32> {
        let digits = customer_id
            .strip_prefix("load-")?
            .strip_prefix(self.id.as_str())?
            .strip_prefix("-c")?;
        if digits.len() >= 6 { digits.parse().ok() } else { None }
    }

    pub fn subscription_id(&self, customer: u32, subscription: Option<u8>) -> String {
        let mut text = Vec::new();
        self.write_subscription(customer, subscription, &mut text);
        String::from_utf8(text).expect("ids are ASCII")
    }

    /// The subscription that a store names beside `customer_id`, if any; the outer `None` when the
    /// customer has no such subscription.
    pub fn subscription_of(&self, customer_id: &str, text: &str) -> Option<Option<u8>> {
        if text.is_empty() {
            return Some(None);
        }
        let digit = text.strip_prefix(customer_id)?.strip_prefix("-s")?;
        let subscription = digit.parse().ok().filter(|number| *number < SUBSCRIPTIONS)?;
        if digit.len() == 1 { Some(Some(subscription)) } else { None }
    }

    /// Scope and transaction id.
    pub fn identity(&self, id: EventId) -> (String, String) {
        let (mut scope, mut transaction_id) = (Vec::new(), Vec::new());
        self.write_identity(id.number, self.facts(id).variant(), &mut scope, &mut transaction_id);
        let text = |bytes| String::from_utf8(bytes).expect("ids are ASCII");
        (text(scope), text(transaction_id))
    }

    /// The identity of an event, for people.
    pub fn name(&self, id: EventId) -> String {
        let (scope, mut text) = self.identity(id);
        if !scope.is_empty() {
            text.push_str(" in the scope ");
            text.push_str(&scope);
        }
        if self.organizations.len() > 1 {
            text.push_str(" of ");
            text.push_str(&self.organizations[usize::from(id.organization)]);
        }
        text
    }

    /// The id of an event that must be refused.
    pub fn invalid_id(&self, number: u64) -> String {
        format!("load-{}-r-{number:0DIGITS_OF_NUMBER$}", self.id)
    }

    pub fn is_invalid_id(&self, transaction_id: &str) -> bool {
        self.after_prefix(transaction_id).is_some_and(|rest| rest.starts_with("-r-"))
    }

    /// The event of an identity; `None` when it is not one that was ever written.
    pub fn find(&self, organization: u16, scope: &str, transaction_id: &str) -> Option<EventId> {
        let written = self.after_prefix(scope);
        if written.is_none() && !scope.is_empty() {
            return None;
        }
        let text = match written {
            Some(_) => transaction_id,
            None => self.after_prefix(transaction_id)?,
        };
        for (split, (scope_end, start)) in (0..).zip(Variant::SPLITS) {
            let group = text.strip_prefix(start).and_then(exact_number);
            if let (true, Some(group)) = (scope_end == written, group) {
                let variant = Variant { group, split };
                let id = EventId { organization, number: variant.number() };
                let is_so = self.facts(id).variant() == Some(variant);
                return if is_so { Some(id) } else { None };
            }
        }
        if written.is_some() {
            return None;
        }
        let id = EventId { organization, number: exact_number(text.strip_prefix('-')?)? };
        if self.facts(id).variant().is_none() { Some(id) } else { None }
    }

    fn after_prefix<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix("load-")?.strip_prefix(self.id.as_str())
    }

    pub(crate) fn write_identity(
        &self,
        number: u64,
        variant: Option<Variant>,
        scope: &mut Vec<u8>,
        transaction_id: &mut Vec<u8>,
    ) {
        let (scope_end, id_start, number) = match variant {
            Some(variant) => {
                let (scope_end, id_start) = variant.parts();
                (scope_end, id_start, variant.group)
            }
            None => (None, "-", number),
        };
        let prefixed = if scope_end.is_some() { &mut *scope } else { &mut *transaction_id };
        prefixed.extend_from_slice(b"load-");
        prefixed.extend_from_slice(self.id.as_bytes());
        scope.extend_from_slice(scope_end.unwrap_or("").as_bytes());
        transaction_id.extend_from_slice(id_start.as_bytes());
        decimal::write_integer(number.into(), DIGITS_OF_NUMBER, transaction_id);
    }

    pub(crate) fn write_customer(&self, customer: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"load-");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b"-c");
        decimal::write_integer(customer.into(), 6, out);
    }

    /// Appends nothing when there is no subscription.
    pub(crate) fn write_subscription(
        &self,
        customer: u32,
        subscription: Option<u8>,
        out: &mut Vec<u8>,
    ) {
        if let Some(subscription) = subscription {
            self.write_customer(customer, out);
            out.extend_from_slice(b"-s");
            decimal::write_integer(subscription.into(), 1, out);
        }
    }
}

fn exact_number(digits: &str) -> Option<u64> {
    let exact =
        digits.len() == DIGITS_OF_NUMBER && digits.bytes().all(|byte| byte.is_ascii_digit());
    if exact { digits.parse().ok() } else { None }
}

fn subscription(noise: u64) -> Option<u8> {
    let drawn = below(noise >> 48, 3 * u32::from(SUBSCRIPTIONS));
    u8::try_from(drawn).ok().filter(|number| *number < SUBSCRIPTIONS)
}

/// Whole numbers mostly; some with all 12 fraction digits, some credits, and one in a thousand so
/// large that a sum which keeps 38 digits, or passes through a float, comes out wrong.
fn value(noise: u64) -> i128 {
    let amount = i128::from(noise >> 24);
    match noise % 1_000 {
        0 => (9 * 10_i128.pow(25) + amount) * UNITS_PER_ONE + amount % UNITS_PER_ONE,
        1..=20 => -(amount % 100 + 1) * UNITS_PER_ONE,
        21..=250 => amount % 10_i128.pow(16),
        _ => (amount % 5_000 + 1) * UNITS_PER_ONE,
    }
}

/// Nine of ten events are seconds old, some hours, some days, so that reads and inserts meet many hours.
fn lateness_ms(noise: u64) -> i64 {
    let limit = match noise % 100 {
        0..=89 => 5_000,
        90..=97 => 3 * 3_600_000,
        _ => 3 * 24 * 3_600_000,
    };
    i64::from(below(noise >> 28, limit))
}

/// The finalizer of splitmix64: spreads any two numbers over all 64 bits.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn below(noise: u64, limit: u32) -> u32 {
    u32::try_from(noise % u64::from(limit.max(1))).expect("below a u32")
}

pub(crate) fn index(noise: u64, length: usize) -> usize {
    let length = u32::try_from(length).expect("a short list");
    usize::try_from(below(noise, length)).expect("an index of a short list")
}

#[cfg(test)]
pub(crate) fn example_run() -> Run {
    Run {
        format: crate::ledger::FORMAT,
        id: "k3fq".to_owned(),
        seed: 7,
        started_at_ms: 1_795_262_400_000,
        rate: 20_000,
        customers: 10,
        metrics: vec![
            Metric { code: "api_calls".to_owned(), aggregation: Aggregation::Count, field: None },
            Metric {
                code: "tokens".to_owned(),
                aggregation: Aggregation::Sum,
                field: Some("tokens".to_owned()),
            },
            Metric { code: "credits".to_owned(), aggregation: Aggregation::Sum, field: None },
        ],
        organizations: vec![String::new()],
        edge_cases: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> EventId {
        EventId { organization: 0, number }
    }

    #[test]
    fn ids_are_read_back_and_those_of_other_runs_are_not() {
        let run = example_run();
        assert_eq!(run.name(id(1_234_567)), "load-k3fq-0001234567");
        assert_eq!(run.find(0, "", "load-k3fq-0001234567"), Some(id(1_234_567)));
        let customer = run.customer_id(9);
        assert_eq!(run.customer_of(&customer), Some(9));
        for subscription in [None, Some(0), Some(1)] {
            let text = run.subscription_id(9, subscription);
            assert_eq!(run.subscription_of(&customer, &text), Some(subscription));
        }
        for text in ["sub", &customer, &format!("{customer}-s2"), &format!("{customer}-s00")] {
            assert_eq!(run.subscription_of(&customer, text), None, "{text}");
        }
        assert_eq!(run.subscription_of(&customer, &run.subscription_id(8, Some(0))), None);
        for id in [
            "load-k3fq-1",
            "load-other-0000000001",
            "load-k3fq-000000000x",
            "load-k3fq-00000000001",
            "load-k3fq-r-0000000001",
            "load-k3fq-s-x-0000000300",
            "",
        ] {
            assert_eq!(run.find(0, "", id), None, "{id}");
        }
        assert_eq!(run.find(0, "load-k3fq-s", "load-k3fq-0001234567"), None);
        assert_eq!(run.find(0, "other", "load-k3fq-0001234567"), None);
        assert_eq!(run.find(0, "load-k3fq-s", "x-0000000300"), None, "no such group was sent");
    }

    #[test]
    fn no_event_is_ahead_of_its_request_and_all_kinds_of_values_occur() {
        let run = example_run();
        let facts: Vec<Facts> =
            (DRAIN_EVENTS..DRAIN_EVENTS + 20_000).map(|number| run.facts(id(number))).collect();
        assert!(facts.iter().all(|facts| facts.timestamp_ms < run.started_at_ms + 1_000));
        assert!(facts.iter().all(|facts| facts.customer < run.customers));
        let subscribed = facts.iter().filter(|facts| facts.subscription.is_some()).count();
        assert!((6_000..7_300).contains(&subscribed), "a third: {subscribed}");
        let values: Vec<i128> = facts.iter().filter_map(|facts| facts.value).collect();
        assert!(values.iter().any(|value| *value < 0));
        assert!(values.iter().any(|value| *value > 9 * 10_i128.pow(37)));
        assert!(values.iter().any(|value| value % UNITS_PER_ONE != 0));
        assert!(
            values.iter().all(|value| value.unsigned_abs() < 10_u128.pow(38)),
            "the API takes 26 integer digits"
        );
    }

    #[test]
    fn one_number_in_two_organizations_is_two_events() {
        let organizations = vec!["a".to_owned(), "b".to_owned()];
        let run = Run { organizations, ..example_run() };
        let facts = |organization| run.facts(EventId { organization, number: 5_000 });
        assert_ne!(facts(0), facts(1));
        // 4,000 events of each of two organizations at 20,000 per second.
        let sent = run.started_at_ms + 400;
        assert!([0, 1].into_iter().all(|i| facts(i).timestamp_ms <= sent));
    }

    #[test]
    fn the_events_that_drain_have_a_customer_of_their_own() {
        let run = Run { edge_cases: 2_500, ..example_run() };
        assert!((0..DRAIN_EVENTS).all(|number| run.facts(id(number)).customer == run.customers));
        assert!((DRAIN_EVENTS..9_000).all(|n| run.facts(id(n)).customer < run.customers));
    }
}
