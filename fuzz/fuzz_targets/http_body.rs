//! Bodies of requests, through the router of the API: every event has one outcome, accepted ones are
//! in the log exactly as sent, nothing else is.
//!
//! The first byte of the input says how the rest is sent, see `Sending`.
#![no_main]

use fuzz::service::{self, ORGANIZATION, Response, Service};
use fuzz::{decimal, instant, json};
use libfuzzer_sys::{Corpus, fuzz_target};
use metering::{EventRequest, UsageEvent, ValidationRules, validate};
use std::collections::HashSet;
use std::io::Write as _;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((how, content)) = data.split_first() else { return Corpus::Reject };
    let sending = Sending::of(*how);
    let (encoding, sent) = sending.encode(content);
    let log_is_away = sending == Sending::LogAway;
    let pieces = if sending == Sending::Pieces { 7 } else { usize::MAX };
    let response = Service::get().post(encoding, sent.clone(), pieces, log_is_away);
    check_response(&response);
    if log_is_away {
        assert!(response.status != 200, "no success without the log");
    } else if response.status != 200 {
        assert!(response.records.is_empty(), "a refusal stores nothing");
    }
    if !matches!(sending, Sending::GzipStream | Sending::ZstdStream) {
        let compressed = encoding.is_some().then_some(sent.len());
        check_content(content, compressed, &response, log_is_away);
    }
    Corpus::Keep
});

/// How a body is sent. Letters, so that a corpus can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// As it is, in one piece.
    Plain,
    /// As it is, seven bytes at a time.
    Pieces,
    /// Compressed by the target.
    Gzip,
    Zstd,
    /// The input is the compressed stream.
    GzipStream,
    ZstdStream,
    /// As it is, while the log confirms nothing.
    LogAway,
}

impl Sending {
    fn of(byte: u8) -> Self {
        match byte {
            b'c' => Self::Pieces,
            b'g' => Self::Gzip,
            b'z' => Self::Zstd,
            b'G' => Self::GzipStream,
            b'Z' => Self::ZstdStream,
            b'a' => Self::LogAway,
            _ => Self::Plain,
        }
    }

    fn encode(self, content: &[u8]) -> (Option<&'static str>, Vec<u8>) {
        match self {
            Self::Plain | Self::Pieces | Self::LogAway => (None, content.to_vec()),
            Self::GzipStream => (Some("gzip"), content.to_vec()),
            Self::ZstdStream => (Some("zstd"), content.to_vec()),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).expect("writing to memory cannot fail");
                (Some("gzip"), encoder.finish().expect("writing to memory cannot fail"))
            }
            Self::Zstd => {
                (Some("zstd"), zstd::encode_all(content, 1).expect("writing to memory cannot fail"))
            }
        }
    }
}

/// What holds of every answer.
fn check_response(response: &Response) {
    let Response { status, content_type, retry_after, body, records } = response;
    assert!(matches!(status, 200 | 400 | 413 | 422 | 503), "{status}: {body}");
    assert_eq!(*retry_after, *status == 503, "{status}");
    let problem = if *status == 200 { "application/json" } else { "application/problem+json" };
    assert_eq!(content_type, problem);
    let members = json::members(body).expect("every answer is a JSON object");
    if *status != 200 {
        assert_eq!(json::member(&members, "status"), Some(status.to_string().as_str()));
    }
    let listed = json::member(&members, "accepted");
    let accepted = listed.map_or(0, |count| count.parse::<usize>().expect("a count"));
    if *status == 200 {
        assert!(accepted > 0 && accepted == records.len(), "{accepted}: {}", records.len());
    }
}

/// Holds the answer to a plain reading of the content.
fn check_content(content: &[u8], compressed: Option<usize>, response: &Response, away: bool) {
    let too_large = content.len() > size(service::BODY_BYTES_MAX)
        || compressed.is_some_and(|sent| sent > size(service::COMPRESSED_BYTES_MAX));
    if too_large {
        assert_eq!(response.status, 413, "{}", response.body);
        return;
    }
    let expected = std::str::from_utf8(content).ok().and_then(events_of);
    let Some((events, batch)) = expected else {
        assert!(matches!(response.status, 400 | 413), "{}: {}", response.status, response.body);
        return;
    };
    check_library(content, &events, response);
    if away && response.status == 503 {
        return;
    }
    assert!(matches!(response.status, 200 | 422), "{}: {}", response.status, response.body);
    let answer = json::members(&response.body).expect("checked before");
    let outcomes = json::member(&answer, "events").and_then(json::elements).expect("a list");
    assert_eq!(outcomes.len(), events.len(), "every event has one outcome");
    let mut records = response.records.iter();
    let mut accepted = HashSet::new();
    let mut counts = [0_usize; 3];
    for (index, (event, outcome)) in events.iter().zip(&outcomes).enumerate() {
        let outcome = json::members(outcome).expect("an outcome is an object");
        let text = |name| json::member(&outcome, name).and_then(json::string);
        assert_eq!(json::member(&outcome, "index"), Some(index.to_string().as_str()));
        let status = text("status").expect("an outcome has a status");
        match status.as_str() {
            "accepted" => {
                counts[0] += 1;
                let record = records.next().expect("an accepted event is in the log");
                let event = Sent::read(event).expect("an accepted event can be read");
                event.check_record(&record.decode());
                assert_eq!(text("transaction_id"), Some(event.transaction_id.clone()));
                assert!(accepted.insert((event.scope, event.transaction_id)), "accepted twice");
            }
            "duplicate" => {
                counts[1] += 1;
                let event = Sent::read(event).expect("a duplicate can be read");
                assert!(accepted.contains(&(event.scope, event.transaction_id)), "of nothing");
            }
            "rejected" => {
                counts[2] += 1;
                let pointer = text("pointer").expect("a rejection has a pointer");
                let prefix = if batch { format!("/events/{index}") } else { String::new() };
                assert!(pointer.starts_with(&prefix), "{pointer}");
                assert!(text("detail").is_some_and(|detail| detail.len() > 20));
                let code = text("code").expect("a rejection has a code");
                let good = Sent::read(event).is_some_and(|event| event.is_plainly_good());
                assert!(!good || code == "conflicting_duplicate", "{event}: {code}");
            }
            other => panic!("the status {other}"),
        }
    }
    assert!(records.next().is_none(), "nothing is in the log that was not accepted");
    let count = |name| json::member(&answer, name).map(str::to_owned);
    for (name, expected) in ["accepted", "duplicates", "rejected"].iter().zip(counts) {
        assert_eq!(count(name), Some(expected.to_string()), "{name}");
    }
}

fn size(limit: u32) -> usize {
    usize::try_from(limit).expect("limits are small")
}

/// The texts of the events, and whether they came as `events`; `None` when the request is refused.
fn events_of(text: &str) -> Option<(Vec<&str>, bool)> {
    let members = json::members(text)?;
    if members.iter().all(|(key, _)| *key != "\"events\"") {
        return Some((vec![text.trim_matches([' ', '\t', '\n', '\r'])], false));
    }
    let [(_, list)] = members[..] else { return None };
    let events = json::elements(list)?;
    (1..=size(service::EVENTS_MAX)).contains(&events.len()).then_some((events, true))
}

/// The domain alone decides the same, and what it accepts survives the log.
fn check_library(content: &[u8], events: &[&str], response: &Response) {
    let text = std::str::from_utf8(content).expect("read before");
    let request = EventRequest::parse(text, size(service::EVENTS_MAX)).expect("a good request");
    assert_eq!(request.events(), events);
    let (catalog, rules) = (service::catalog(), ValidationRules::default());
    let validated = validate(&request, ORGANIZATION, &catalog, &rules, service::now());
    assert_eq!(validated.outcomes.len(), events.len());
    assert_eq!(validated.accepted.len(), response.records.len());
    for (event, record) in validated.accepted.iter().zip(&response.records) {
        assert_eq!(record.decode(), *event);
    }
}

/// An event as a plain reading finds it.
struct Sent<'a> {
    members: Vec<(&'a str, &'a str)>,
    scope: String,
    transaction_id: String,
}

impl<'a> Sent<'a> {
    /// `None` when it is no object, has a key twice or no id.
    fn read(text: &'a str) -> Option<Self> {
        let members = json::members(text)?;
        let names: Option<HashSet<_>> = members.iter().map(|(key, _)| json::string(key)).collect();
        if names?.len() != members.len() {
            return None;
        }
        let transaction_id = json::string(json::member(&members, "transaction_id")?)?;
        let scope = json::member(&members, "transaction_scope")
            .map_or(Some(String::new()), json::string)?;
        Some(Self { members, scope, transaction_id })
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        json::member(&self.members, name)
    }

    fn string(&self, name: &str) -> String {
        self.text(name).and_then(json::string).unwrap_or_default()
    }

    fn millis(&self) -> instant::Reading {
        instant::read(&self.string("timestamp"))
    }

    /// Every field is in the record as it was sent.
    fn check_record(&self, event: &UsageEvent<'_>) {
        assert_eq!(event.organization_id, ORGANIZATION);
        assert_eq!(event.transaction_scope, self.scope);
        assert_eq!(event.transaction_id, self.transaction_id);
        assert_eq!(event.external_customer_id, self.string("external_customer_id"));
        assert_eq!(event.external_subscription_id, self.string("external_subscription_id"));
        assert_eq!(event.code, self.string("code"));
        assert_eq!(Some(event.timestamp.timestamp_millis()), self.millis().millis());
        assert_eq!(event.accepted_at, service::now());
        let properties = self.text("properties").unwrap_or("{}");
        assert_eq!(event.properties.as_str(), properties);
        let number = match event.code.as_ref() {
            "tokens" => {
                let members = json::members(properties).expect("checked properties");
                json::member(&members, "to/kens")
            }
            _ => self.text("value"),
        };
        let number = number.map(|n| json::string(n).unwrap_or_else(|| n.to_owned()));
        let units = number.map(|number| decimal::read(&number));
        let stored = event.value.map(|value| decimal::Reading::Units(value.units().into()));
        assert_eq!(units, stored);
    }

    /// Whether there is no doubt that the event is to be accepted.
    fn is_plainly_good(&self) -> bool {
        let names = ["transaction_id", "external_customer_id", "code", "timestamp"];
        let known = self
            .members
            .iter()
            .all(|(key, _)| names.iter().any(|name| **key == format!("\"{name}\"")));
        let plain = |name| {
            let text = self.string(name);
            (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let recent = matches!(self.millis(), instant::Reading::Strict(millis) if (service::NOW_MILLIS - 86_400_000..=service::NOW_MILLIS).contains(&millis));
        known
            && recent
            && plain("transaction_id")
            && plain("external_customer_id")
            && self.string("code") == "api_calls"
    }
}
