//! What an answer of the API says about the events of its request.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The code of an answer to a request that was cut short on its way: nothing of it is stored.
const INCOMPLETE_BODY: &str = "incomplete_body";

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every event is stored for ever.
    Acked,
    /// The events at these positions are refused, the others accepted.
    PartlyRejected { slots: Vec<u64>, codes: BTreeMap<String, u64> },
    /// Nothing of the request is stored, and the same request would be refused again.
    Rejected { codes: BTreeMap<String, u64> },
    /// Each event may be stored or not; the same request is to be sent again.
    Unknown { cause: String },
    /// A 2xx that does not add up. Treated as unknown, and reported.
    Broken { why: String },
}

#[derive(Deserialize)]
struct Summary {
    accepted: u64,
    rejected: u64,
    #[serde(default)]
    duplicates: u64,
}

#[derive(Deserialize)]
struct Problem {
    code: Option<String>,
}

#[derive(Deserialize)]
struct EventList<'a> {
    #[serde(borrow, default)]
    events: Vec<EventStatus<'a>>,
}

#[derive(Deserialize)]
struct EventStatus<'a> {
    index: u64,
    status: &'a str,
    code: Option<&'a str>,
}

/// Reads the answer to a request of `sent` events.
pub fn read(status: u16, body: &[u8], sent: u64) -> Answer {
    match status {
        200..=299 => accepted(body, sent),
        408 | 429 | 500..=599 => Answer::Unknown { cause: format!("status {status}") },
        400..=499 => refusal(status, body),
        _ => Answer::Unknown { cause: format!("status {status}") },
    }
}

/// A body that arrived incomplete says something of the connection, not of the events in it.
fn refusal(status: u16, body: &[u8]) -> Answer {
    let codes = rejected_codes(status, body);
    if codes.contains_key(INCOMPLETE_BODY) {
        return Answer::Unknown { cause: INCOMPLETE_BODY.to_owned() };
    }
    Answer::Rejected { codes }
}

fn accepted(body: &[u8], sent: u64) -> Answer {
    let Ok(Summary { accepted, rejected, duplicates }) = serde_json::from_slice(body) else {
        return Answer::Broken { why: "the body of a 2xx is not the documented object".to_owned() };
    };
    // No request holds an event twice, so there is nothing to be a duplicate of.
    if accepted + rejected != sent || duplicates > 0 {
        let why = format!(
            "{accepted} accepted, {rejected} rejected and {duplicates} duplicates of {sent} events"
        );
        return Answer::Broken { why };
    }
    if rejected == 0 {
        return Answer::Acked;
    }
    let (slots, codes) = refused(body);
    if u64::try_from(slots.len()) != Ok(rejected) || slots.iter().any(|slot| *slot >= sent) {
        return Answer::Broken {
            why: format!("{rejected} events are rejected, {} are listed", slots.len()),
        };
    }
    Answer::PartlyRejected { slots, codes }
}

fn refused(body: &[u8]) -> (Vec<u64>, BTreeMap<String, u64>) {
    let list: EventList<'_> =
        serde_json::from_slice(body).unwrap_or(EventList { events: Vec::new() });
    let mut codes = BTreeMap::new();
    let mut slots = Vec::new();
    for event in list.events.iter().filter(|event| event.status == "rejected") {
        slots.push(event.index);
        *codes.entry(event.code.unwrap_or("none").to_owned()).or_default() += 1;
    }
    slots.sort_unstable();
    slots.dedup();
    (slots, codes)
}

/// By event where the answer lists them, else the code of the whole request.
fn rejected_codes(status: u16, body: &[u8]) -> BTreeMap<String, u64> {
    let (_, codes) = refused(body);
    if !codes.is_empty() {
        return codes;
    }
    let problem = serde_json::from_slice(body).unwrap_or(Problem { code: None });
    BTreeMap::from([(problem.code.unwrap_or_else(|| format!("status {status}")), 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(code: &str) -> BTreeMap<String, u64> {
        BTreeMap::from([(code.to_owned(), 1)])
    }

    #[test]
    fn a_whole_acceptance_is_an_ack() {
        let body = br#"{"accepted":2,"rejected":0,"duplicates":0,"events":[{"index":0,"transaction_id":"a","status":"accepted"},{"index":1,"transaction_id":"b","status":"accepted"}]}"#;
        assert_eq!(read(200, body, 2), Answer::Acked);
    }

    #[test]
    fn refused_events_are_named() {
        let body = br#"{"accepted":1,"rejected":1,"events":[{"index":0,"transaction_id":"a","status":"accepted"},{"index":1,"transaction_id":"b","status":"rejected","code":"timestamp_too_old","pointer":"/events/1/timestamp","detail":"\u0061"}]}"#;
        assert_eq!(
            read(200, body, 2),
            Answer::PartlyRejected { slots: vec![1], codes: codes("timestamp_too_old") }
        );
    }

    #[test]
    fn answers_that_do_not_add_up_are_no_acks() {
        let bodies = [
            r#"{"accepted":1,"rejected":0,"events":[]}"#,
            r#"{"accepted":3,"rejected":0,"events":[]}"#,
            r#"{"accepted":1,"rejected":0,"duplicates":1,"events":[]}"#,
            r#"{"accepted":1,"rejected":1,"events":[]}"#,
            r#"{"accepted":1,"rejected":1,"events":[{"index":2,"status":"rejected","code":"x"}]}"#,
            r#"{"accepted":2"#,
            "",
        ];
        for body in bodies {
            assert!(matches!(read(200, body.as_bytes(), 2), Answer::Broken { .. }), "{body}");
        }
    }

    #[test]
    fn only_some_refusals_are_final() {
        for status in [408, 429, 500, 502, 503, 504, 301] {
            assert!(matches!(read(status, b"{}", 2), Answer::Unknown { .. }), "{status}");
        }
        for status in [400, 401, 403, 413, 415, 422] {
            let body = br#"{"type":"x","code":"invalid_api_key"}"#;
            assert_eq!(
                read(status, body, 2),
                Answer::Rejected { codes: codes("invalid_api_key") },
                "{status}"
            );
        }
        let cut = br#"{"type":"x","code":"incomplete_body"}"#;
        assert!(matches!(read(400, cut, 2), Answer::Unknown { .. }));
        assert_eq!(read(404, b"<html>", 2), Answer::Rejected { codes: codes("status 404") });
    }
}
