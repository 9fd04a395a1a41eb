//! Events as JSON: valid ones as their facts say, and ones that the API has to refuse.

use crate::decimal;
use crate::edge;
use crate::event::{EventId, Facts, Run, below, index, mix};
use chrono::{DateTime, Datelike, Timelike};

const REGIONS: [&str; 4] = ["eu-west-1", "us-east-1", "ap-south-1", "eu-central-1"];
/// White space, escapes and quotes, each of which has to be kept as it was written.
const HARD_TEXT: &str = ",\n\t\"note\" : \"it's \\\"quoted\\\" \\\\ \\u00e9 é \\t\"";
/// 2⁶³, in 10⁻¹².
const BEYOND_64_BITS: u128 = (1 << 63) * 1_000_000_000_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// What is wrong with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    UnknownMetric,
    TooOld,
    InFuture,
    NoOffset,
    ScopeTooLong,
    /// These need a metric that sums.
    TooManyIntegerDigits,
    TooManyFractionDigits,
    NotANumber,
    MissingValue,
}

const FLAWS: [Flaw; 9] = [
    Flaw::UnknownMetric,
    Flaw::TooOld,
    Flaw::InFuture,
    Flaw::NoOffset,
    Flaw::ScopeTooLong,
    Flaw::TooManyIntegerDigits,
    Flaw::TooManyFractionDigits,
    Flaw::NotANumber,
    Flaw::MissingValue,
];
const FLAWS_OF_COUNTS: usize = 5;

/// The parts of an event that can be flawed.
struct Parts<'a> {
    scope: &'a [u8],
    transaction_id: &'a [u8],
    customer: u32,
    subscription: Option<u8>,
    code: &'a str,
    timestamp_ms: i64,
    offset: &'a str,
    /// A JSON value, with the property it belongs to if it is one.
    value: Option<(&'a [u8], Option<&'a str>)>,
    hard_text: bool,
    noise: u64,
}

impl Run {
    /// Appends an event: about 330 bytes, like those of a metered API. A `changed` copy says something
    /// else under the same identity.
    pub fn write_json(&self, id: EventId, changed: bool, out: &mut Vec<u8>) {
        let facts = if changed { self.changed(id) } else { self.facts(id) };
        let (mut scope, mut transaction_id, mut value) = (Vec::new(), Vec::new(), Vec::new());
        self.write_identity(id.number, facts.variant(), &mut scope, &mut transaction_id);
        let parts = Parts {
            scope: &scope,
            transaction_id: &transaction_id,
            ..facts.parts(self, &mut value)
        };
        self.write_parts(&parts, out);
    }

    /// Appends an event that must be refused; apart from one flaw it is like the others.
    pub fn write_invalid(&self, id: EventId, out: &mut Vec<u8>) {
        let noise = mix(self.seed ^ mix(!id.number ^ (u64::from(id.organization) << 48)));
        let sum = edge::sums(self).next();
        let flaws = if sum.is_some() { FLAWS.len() } else { FLAWS_OF_COUNTS };
        let flaw = FLAWS[index(noise >> 8, flaws)];
        let facts = self.facts(id);
        let metric = &self.metrics[sum.unwrap_or(facts.metric)];
        let value: Option<&[u8]> = match flaw {
            Flaw::TooManyIntegerDigits => Some(b"\"100000000000000000000000000\""),
            Flaw::TooManyFractionDigits => Some(b"\"0.0000000000001\""),
            Flaw::NotANumber => Some(b"\"12,5\""),
            Flaw::MissingValue => None,
            _ => sum.map(|_| b"1".as_slice()),
        };
        let transaction_id = self.invalid_id(id.number);
        let parts = Parts {
            scope: &[b's'; 256][..if flaw == Flaw::ScopeTooLong { 256 } else { 0 }],
            transaction_id: transaction_id.as_bytes(),
            customer: below(noise >> 16, self.customers),
            subscription: None,
            code: if flaw == Flaw::UnknownMetric { "load-unknown" } else { &metric.code },
            timestamp_ms: match flaw {
                Flaw::TooOld => self.started_at_ms - 36 * DAY_MS,
                Flaw::InFuture => self.started_at_ms + 7 * DAY_MS,
                _ => self.started_at_ms,
            },
            offset: if flaw == Flaw::NoOffset { "" } else { "Z" },
            value: value.map(|text| (text, metric.field.as_deref())),
            hard_text: false,
            noise,
        };
        self.write_parts(&parts, out);
    }

    fn write_parts(&self, parts: &Parts<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"transaction_id\":\"");
        out.extend_from_slice(parts.transaction_id);
        if !parts.scope.is_empty() {
            out.extend_from_slice(b"\",\"transaction_scope\":\"");
            out.extend_from_slice(parts.scope);
        }
        out.extend_from_slice(b"\",\"external_customer_id\":\"");
        self.write_customer(parts.customer, out);
        if parts.subscription.is_some() {
            out.extend_from_slice(b"\",\"external_subscription_id\":\"");
            self.write_subscription(parts.customer, parts.subscription, out);
        }
        out.extend_from_slice(b"\",\"code\":\"");
        out.extend_from_slice(parts.code.as_bytes());
        out.extend_from_slice(b"\",\"timestamp\":\"");
        write_timestamp(parts.timestamp_ms, out);
        out.extend_from_slice(parts.offset.as_bytes());
        out.push(b'"');
        if let Some((value, None)) = parts.value {
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(value);
        }
        out.extend_from_slice(b",\"properties\":");
        parts.write_properties(out);
        out.push(b'}');
    }
}

impl Parts<'_> {
    fn write_properties(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"region\":\"");
        out.extend_from_slice(REGIONS[index(self.noise >> 32, REGIONS.len())].as_bytes());
        out.extend_from_slice(b"\",\"endpoint\":\"/v1/completions\",\"model\":\"large-2026-10\",\"status\":200,\"client\":\"sdk-python/2.14.0\",\"duration_ms\":");
        decimal::write_integer(below(self.noise >> 20, 4_000).into(), 1, out);
        if let Some((value, Some(field))) = self.value {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
        }
        if self.hard_text {
            out.extend_from_slice(HARD_TEXT.as_bytes());
        }
        out.push(b'}');
    }
}

/// Both spellings of a value are part of the API: a JSON number, and a string that holds one.
fn write_value(units: i128, quoted: bool, out: &mut Vec<u8>) {
    let quote: &[u8] = if quoted { b"\"" } else { b"" };
    out.extend_from_slice(quote);
    decimal::write(units, out);
    out.extend_from_slice(quote);
}

/// Appends RFC 3339 to the millisecond without an offset, such as `2026-11-21T12:00:00.000`.
fn write_timestamp(milliseconds: i64, out: &mut Vec<u8>) {
    let at = DateTime::from_timestamp_millis(milliseconds).expect("an instant of this century");
    let mut part = |number: u32, width: usize, after: &[u8]| {
        decimal::write_integer(number.into(), width, out);
        out.extend_from_slice(after);
    };
    part(at.year().unsigned_abs(), 4, b"-");
    part(at.month(), 2, b"-");
    part(at.day(), 2, b"T");
    part(at.hour(), 2, b":");
    part(at.minute(), 2, b":");
    part(at.second(), 2, b".");
    part(at.nanosecond() / 1_000_000, 3, b"");
}

impl Facts {
    /// All parts but the identity. `value` is an empty buffer for the text of the quantity.
    fn parts<'a>(&self, run: &'a Run, value: &'a mut Vec<u8>) -> Parts<'a> {
        let metric = &run.metrics[self.metric];
        if let Some(units) = self.value {
            // An integer in properties has 64 bits, or is a string.
            let wide = metric.field.is_some() && units.unsigned_abs() >= BEYOND_64_BITS;
            write_value(units, wide || self.noise & 1 == 0, value);
        }
        Parts {
            scope: b"",
            transaction_id: b"",
            customer: self.customer,
            subscription: self.subscription,
            code: &metric.code,
            timestamp_ms: self.timestamp_ms,
            offset: "Z",
            value: self.value.map(|_| (value.as_slice(), metric.field.as_deref())),
            hard_text: self.is_edge(),
            noise: self.noise,
        }
    }

    /// Appends the properties as they were sent, which is how the store keeps them.
    pub fn write_properties(&self, run: &Run, out: &mut Vec<u8>) {
        self.parts(run, &mut Vec::new()).write_properties(out);
    }

    /// Appends the row that the store should hold, each part with its length, for the set hash.
    pub fn write_row(&self, run: &Run, id: EventId, organization: &str, out: &mut Vec<u8>) {
        let (mut scope, mut transaction_id, mut part) = (Vec::new(), Vec::new(), Vec::new());
        run.write_identity(id.number, self.variant(), &mut scope, &mut transaction_id);
        let mut put = |bytes: &[u8]| {
            let length = u128::try_from(bytes.len()).expect("a length");
            decimal::write_integer(length, 1, out);
            out.push(b':');
            out.extend_from_slice(bytes);
        };
        put(organization.as_bytes());
        put(&scope);
        put(&transaction_id);
        run.write_customer(self.customer, &mut part);
        put(&part);
        part.clear();
        run.write_subscription(self.customer, self.subscription, &mut part);
        put(&part);
        put(run.metrics[self.metric].code.as_bytes());
        put(self.timestamp_ms.to_string().as_bytes());
        part.clear();
        match self.value {
            Some(units) => decimal::write(units, &mut part),
            None => part.extend_from_slice(b"null"),
        }
        put(&part);
        part.clear();
        self.write_properties(run, &mut part);
        put(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DRAIN_EVENTS, example_run};
    use std::collections::BTreeSet;

    fn id(number: u64) -> EventId {
        EventId { organization: 0, number }
    }

    fn json(run: &Run, number: u64, changed: bool) -> serde_json::Value {
        let mut out = Vec::new();
        run.write_json(id(number), changed, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn scope(event: &serde_json::Value) -> &str {
        event.get("transaction_scope").map_or("", |scope| scope.as_str().unwrap())
    }

    #[test]
    fn the_json_says_the_facts() {
        let run = Run { edge_cases: 1_000, ..example_run() };
        for number in (0..20_000).step_by(7) {
            let facts = run.facts(id(number));
            let event = json(&run, number, false);
            let transaction_id = event["transaction_id"].as_str().unwrap();
            assert_eq!(run.find(0, scope(&event), transaction_id), Some(id(number)));
            assert_eq!(event["external_customer_id"], run.customer_id(facts.customer));
            let subscription = event.get("external_subscription_id").and_then(|id| id.as_str());
            let expected = run.subscription_id(facts.customer, facts.subscription);
            assert_eq!(subscription.unwrap_or(""), expected);
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
    fn the_properties_are_those_in_the_json_and_edge_cases_have_hard_ones() {
        let run = Run { edge_cases: 1_000, ..example_run() };
        let mut hard = 0;
        for number in 1_000..2_000 {
            for (changed, facts) in
                [(false, run.facts(id(number))), (true, run.changed(id(number)))]
            {
                let (mut event, mut properties) = (Vec::new(), Vec::new());
                run.write_json(id(number), changed, &mut event);
                facts.write_properties(&run, &mut properties);
                let (event, properties) = (str::from_utf8(&event), str::from_utf8(&properties));
                let (_, sent) = event.unwrap().split_once(",\"properties\":").unwrap();
                assert_eq!(sent.strip_suffix('}'), properties.ok());
            }
            let note = &json(&run, number, false)["properties"]["note"];
            assert_eq!(!note.is_null(), run.facts(id(number)).is_edge());
            if !note.is_null() {
                assert_eq!(note, "it's \"quoted\" \\ é é \t");
                hard += 1;
            }
        }
        assert!((50..200).contains(&hard), "{hard}");
    }

    #[test]
    fn a_changed_copy_differs_in_its_timestamp_or_its_value() {
        let run = example_run();
        let (mut timestamps, mut values) = (0, 0);
        for number in 1_500..1_600 {
            let (first, copy) = (run.facts(id(number)), run.changed(id(number)));
            timestamps += u64::from(first.timestamp_ms != copy.timestamp_ms);
            values += u64::from(first.value != copy.value);
            assert_eq!((first.customer, first.metric), (copy.customer, copy.metric));
            assert_ne!(json(&run, number, false), json(&run, number, true));
        }
        assert!(timestamps > 10 && values > 10 && timestamps + values == 100);
    }

    #[test]
    fn confusable_identities_are_different_and_join_to_the_same_text() {
        let run = Run { edge_cases: 1_000, ..example_run() };
        let group =
            (DRAIN_EVENTS..).step_by(4).find(|number| run.facts(id(*number)).variant().is_some());
        let events: Vec<_> =
            (0..4).map(|split| json(&run, group.unwrap() + split, false)).collect();
        let pairs: Vec<(&str, &str)> = events
            .iter()
            .map(|event| (scope(event), event["transaction_id"].as_str().unwrap()))
            .collect();
        let joined = |pair: (&str, &str), by: &str| {
            if pair.0.is_empty() { pair.1.to_owned() } else { [pair.0, pair.1].join(by) }
        };
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(joined(pairs[0], "-"), joined(pairs[1], "-"));
        assert_eq!(joined(pairs[0], "-"), joined(pairs[2], "-"));
        assert_eq!(joined(pairs[0], ""), joined(pairs[3], ""));
        assert_eq!(pairs[1].1, pairs[3].1);
    }

    #[test]
    fn invalid_events_are_json_and_have_names_of_their_own() {
        let run = example_run();
        let mut texts = BTreeSet::new();
        for number in 0..200 {
            let mut out = Vec::new();
            run.write_invalid(id(number), &mut out);
            let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let transaction_id = event["transaction_id"].as_str().unwrap();
            assert!(run.is_invalid_id(transaction_id));
            assert_eq!(run.find(0, "", transaction_id), None);
            texts.insert((event["code"].to_string(), event["properties"]["tokens"].to_string()));
        }
        assert_eq!(texts.len(), 6, "five values of one metric, and another metric: {texts:?}");
        let counts = Run { metrics: vec![run.metrics[0].clone()], ..run };
        counts.write_invalid(id(7), &mut Vec::new());
    }
}
