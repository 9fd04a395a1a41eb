//! The events of a run: each is a pure function of the run and the event's number.
//!
//! So the ledger holds numbers only, and what the store should hold is calculated, not remembered.

use crate::decimal;
use chrono::{DateTime, Datelike, Timelike};
use serde::{Deserialize, Serialize};

/// The first numbers of a run belong to its last request, which drains the pipeline: they have a
/// customer of their own, so that a cheap query tells when all of them are visible.
///
/// 1,000 events reach every partition of the log, unless it has hundreds: of 64 partitions, one is
/// left out with a probability of 10⁻⁵.
pub const DRAIN_EVENTS: u64 = 1_000;

const DIGITS_OF_NUMBER: usize = 10;
const UNITS_PER_ONE: i128 = 1_000_000_000_000;
const REGIONS: [&str; 4] = ["eu-west-1", "us-east-1", "ap-south-1", "eu-central-1"];

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
    /// Events per second, which spaces the timestamps.
    pub rate: u64,
    pub customers: u32,
    /// At least one.
    pub metrics: Vec<Metric>,
    /// The organization that the API key belongs to; empty when it is not known.
    pub organization: String,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Index into [`Run::metrics`].
    pub metric: usize,
    /// Below [`Run::customers`], or equal to it for the events that drain.
    pub customer: u32,
    pub timestamp_ms: i64,
    /// In 10⁻¹².
    pub value: Option<i128>,
    noise: u64,
}

impl Run {
    pub fn facts(&self, number: u64) -> Facts {
        let noise = mix(self.seed ^ mix(number));
        let metric = index(noise >> 8, self.metrics.len());
        let sent_ms = number.saturating_sub(DRAIN_EVENTS).saturating_mul(1_000) / self.rate.max(1);
        let sent_ms = i64::try_from(sent_ms).expect("a run is shorter than 292 million years");
        let value = match self.metrics[metric].aggregation {
            Aggregation::Count => None,
            Aggregation::Sum => Some(value(noise)),
        };
        let customer =
            if number < DRAIN_EVENTS { self.customers } else { below(noise >> 16, self.customers) };
        Facts {
            metric,
            customer,
            timestamp_ms: self.started_at_ms + sent_ms - lateness_ms(noise),
            value,
            noise,
        }
    }

    /// The timestamp of the copy of event `number` that lies: one to three hours earlier.
    pub fn restamped_ms(&self, number: u64) -> i64 {
        let facts = self.facts(number);
        facts.timestamp_ms - 3_600_000 * (1 + i64::from(below(facts.noise >> 24, 3)))
    }

    /// What all transaction ids of the run start with.
    pub fn transaction_prefix(&self) -> String {
        format!("load-{}-", self.id)
    }

    /// What all customer ids of the run start with.
    pub fn customer_prefix(&self) -> String {
        format!("load-{}-c", self.id)
    }

    pub fn transaction_id(&self, number: u64) -> String {
        format!("load-{}-{number:0DIGITS_OF_NUMBER$}", self.id)
    }

    pub fn customer_id(&self, customer: u32) -> String {
        format!("load-{}-c{customer:06}", self.id)
    }

    /// The number of an event of this run; `None` when the id is not one that was ever written.
    pub fn number_of(&self, transaction_id: &str) -> Option<u64> {
        let digits = transaction_id
            .strip_prefix("load-")?
            .strip_prefix(self.id.as_str())?
            .strip_prefix('-')?;
        let exact =
            digits.len() == DIGITS_OF_NUMBER && digits.bytes().all(|byte| byte.is_ascii_digit());
        if exact { digits.parse().ok() } else { None }
    }

    pub fn customer_of(&self, customer_id: &str) -> Option<u32> {
        let digits = customer_id
            .strip_prefix("load-")?
            .strip_prefix(self.id.as_str())?
            .strip_prefix("-c")?;
        if digits.len() >= 6 { digits.parse().ok() } else { None }
    }

    /// Appends the event as JSON: about 330 bytes, like those of a metered API.
    pub fn write_json(&self, number: u64, restamped: bool, out: &mut Vec<u8>) {
        let facts = self.facts(number);
        out.extend_from_slice(b"{\"transaction_id\":\"load-");
        out.extend_from_slice(self.id.as_bytes());
        out.push(b'-');
        decimal::write_integer(number.into(), DIGITS_OF_NUMBER, out);
        out.extend_from_slice(b"\",\"external_customer_id\":\"load-");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b"-c");
        decimal::write_integer(facts.customer.into(), 6, out);
        out.extend_from_slice(b"\",\"code\":\"");
        let metric = &self.metrics[facts.metric];
        out.extend_from_slice(metric.code.as_bytes());
        out.extend_from_slice(b"\",\"timestamp\":\"");
        write_timestamp(
            if restamped { self.restamped_ms(number) } else { facts.timestamp_ms },
            out,
        );
        out.push(b'"');
        let quoted = facts.noise & 1 == 0;
        if let (Some(value), None) = (facts.value, &metric.field) {
            write_value("value", value, quoted, out);
        }
        out.extend_from_slice(b",\"properties\":{\"region\":\"");
        out.extend_from_slice(REGIONS[index(facts.noise >> 32, REGIONS.len())].as_bytes());
        out.extend_from_slice(b"\",\"endpoint\":\"/v1/completions\",\"model\":\"large-2026-10\",\"status\":200,\"client\":\"sdk-python/2.14.0\",\"duration_ms\":");
        decimal::write_integer(below(facts.noise >> 20, 4_000).into(), 1, out);
        if let (Some(value), Some(field)) = (facts.value, &metric.field) {
            write_value(field, value, quoted, out);
        }
        out.extend_from_slice(b"}}");
    }
}

/// Both spellings of a value are part of the API: a JSON number, and a string that holds one.
fn write_value(name: &str, value: i128, quoted: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    let quote: &[u8] = if quoted { b"\"" } else { b"" };
    out.extend_from_slice(quote);
    decimal::write(value, out);
    out.extend_from_slice(quote);
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

/// Appends RFC 3339 in UTC to the millisecond, such as `2026-11-21T12:00:00.000Z`.
fn write_timestamp(milliseconds: i64, out: &mut Vec<u8>) {
    let at = DateTime::from_timestamp_millis(milliseconds).expect("an instant of this century");
    let mut part = |number: u32, width: usize, after: u8| {
        decimal::write_integer(number.into(), width, out);
        out.push(after);
    };
    part(at.year().unsigned_abs(), 4, b'-');
    part(at.month(), 2, b'-');
    part(at.day(), 2, b'T');
    part(at.hour(), 2, b':');
    part(at.minute(), 2, b':');
    part(at.second(), 2, b'.');
    part(at.nanosecond() / 1_000_000, 3, b'Z');
}

/// The finalizer of splitmix64: spreads any two numbers over all 64 bits.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(noise: u64, limit: u32) -> u32 {
    u32::try_from(noise % u64::from(limit.max(1))).expect("below a u32")
}

fn index(noise: u64, length: usize) -> usize {
    let length = u32::try_from(length).expect("a short list");
    usize::try_from(below(noise, length)).expect("an index of a short list")
}

#[cfg(test)]
pub(crate) fn example_run() -> Run {
    Run {
        format: 1,
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
        organization: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(run: &Run, number: u64, restamped: bool) -> serde_json::Value {
        let mut out = Vec::new();
        run.write_json(number, restamped, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_json_says_the_facts() {
        let run = example_run();
        for number in (0..20_000).step_by(7) {
            let facts = run.facts(number);
            let event = json(&run, number, false);
            assert_eq!(event["transaction_id"], run.transaction_id(number));
            assert_eq!(event["external_customer_id"], run.customer_id(facts.customer));
            assert_eq!(event["code"], run.metrics[facts.metric].code);
            let at = DateTime::parse_from_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
            assert_eq!(at.timestamp_millis(), facts.timestamp_ms);
            let fields = [&event["value"], &event["properties"]["tokens"]];
            let expected = [facts.value.is_some() && facts.metric == 2, facts.metric == 1];
            assert_eq!(fields.map(|field| !field.is_null()), expected);
            if let Some(text) = fields.into_iter().find_map(|field| field.as_str()) {
                assert_eq!(decimal::parse(text), facts.value.map(Into::into));
            }
        }
    }

    #[test]
    fn a_restamped_copy_differs_in_its_timestamp_only() {
        let run = example_run();
        let (mut first, mut copy) = (json(&run, 1_500, false), json(&run, 1_500, true));
        assert_ne!(first["timestamp"], copy["timestamp"]);
        first["timestamp"].take();
        copy["timestamp"].take();
        assert_eq!(first, copy);
    }

    #[test]
    fn ids_are_read_back_and_those_of_other_runs_are_not() {
        let run = example_run();
        assert_eq!(run.number_of(&run.transaction_id(1_234_567)), Some(1_234_567));
        assert_eq!(run.customer_of(&run.customer_id(9)), Some(9));
        for id in [
            "load-k3fq-1",
            "load-other-0000000001",
            "load-k3fq-000000000x",
            "load-k3fq-00000000001",
            "",
        ] {
            assert_eq!(run.number_of(id), None, "{id}");
        }
    }

    #[test]
    fn no_event_is_ahead_of_its_request_and_all_kinds_of_values_occur() {
        let run = example_run();
        let facts: Vec<Facts> =
            (DRAIN_EVENTS..DRAIN_EVENTS + 20_000).map(|number| run.facts(number)).collect();
        assert!(facts.iter().all(|facts| facts.timestamp_ms < run.started_at_ms + 1_000));
        assert!(facts.iter().all(|facts| facts.customer < run.customers));
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
    fn the_events_that_drain_have_a_customer_of_their_own() {
        let run = example_run();
        assert!((0..DRAIN_EVENTS).all(|number| run.facts(number).customer == run.customers));
    }
}
