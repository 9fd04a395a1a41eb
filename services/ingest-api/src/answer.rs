//! The answer to a request: the fate of each event, in request order, written into one buffer.

use crate::metrics::{self, EventCounts};
use crate::problem::{Problem, ProblemCode};
use metering::validate::Outcome;
use metering::{Rejection, RejectionCode};
use std::fmt::Write as _;

/// Bytes an accepted event takes in the answer, without its id.
const ENTRY_BYTES: usize = 60;

/// An answer that is sent once the accepted events are durable.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `"accepted":n,"rejected":m,"duplicates":d,"events":[…]`, without braces.
    members: String,
    counts: EventCounts,
    rejections: Vec<(RejectionCode, u64)>,
}

impl Answer {
    pub(crate) fn new(outcomes: &[Outcome<'_>]) -> Self {
        let mut answer =
            Self { members: String::new(), counts: count(outcomes), rejections: Vec::new() };
        let ids: usize = outcomes.iter().map(|o| transaction_id(o).map_or(0, str::len)).sum();
        answer.members.reserve(100 + ids + outcomes.len() * ENTRY_BYTES);
        answer.write(outcomes);
        answer
    }

    /// The body of a success; a refusal when no event was accepted.
    pub(crate) fn finish(self) -> Result<String, Problem> {
        metrics::events(self.counts);
        for (code, count) in self.rejections {
            metrics::rejections(code, count);
        }
        if self.counts.accepted == 0 {
            return Err(Problem::new(ProblemCode::NoEventAccepted).members(self.members));
        }
        let mut body = self.members;
        body.insert(0, '{');
        body.push('}');
        Ok(body)
    }

    fn write(&mut self, outcomes: &[Outcome<'_>]) {
        let EventCounts { accepted, rejected, duplicates } = self.counts;
        let out = &mut self.members;
        append(
            out,
            format_args!(
                "\"accepted\":{accepted},\"rejected\":{rejected},\"duplicates\":{duplicates},\"events\":["
            ),
        );
        for (index, outcome) in outcomes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            append(out, format_args!("{comma}{{\"index\":{index}"));
            if let Some(id) = transaction_id(outcome) {
                write_member(out, "transaction_id", id);
            }
            match outcome {
                Outcome::Accepted { .. } => out.push_str(",\"status\":\"accepted\"}"),
                Outcome::Duplicate { .. } => out.push_str(",\"status\":\"duplicate\"}"),
                Outcome::Rejected(Rejection {
                    index: place,
                    transaction_id: _,
                    code,
                    pointer,
                    detail,
                }) => {
                    debug_assert_eq!(*place, index, "outcomes are in request order");
                    out.push_str(",\"status\":\"rejected\"");
                    write_member(out, "code", code.as_str());
                    write_member(out, "pointer", pointer);
                    write_member(out, "detail", detail);
                    out.push('}');
                    tally(&mut self.rejections, *code);
                }
            }
        }
        out.push(']');
    }
}

fn count(outcomes: &[Outcome<'_>]) -> EventCounts {
    let mut counts = EventCounts::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Accepted { .. } => counts.accepted += 1,
            Outcome::Duplicate { .. } => counts.duplicates += 1,
            Outcome::Rejected(_) => counts.rejected += 1,
        }
    }
    counts
}

fn tally(rejections: &mut Vec<(RejectionCode, u64)>, code: RejectionCode) {
    match rejections.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => rejections.push((code, 1)),
    }
}

fn transaction_id<'a>(outcome: &'a Outcome<'_>) -> Option<&'a str> {
    match outcome {
        Outcome::Accepted { transaction_id } | Outcome::Duplicate { transaction_id } => {
            Some(transaction_id)
        }
        Outcome::Rejected(rejection) => rejection.transaction_id.as_deref(),
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn write_member(out: &mut String, name: &str, text: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn rejected(index: usize, transaction_id: Option<&str>) -> Outcome<'static> {
        Outcome::Rejected(Rejection {
            index,
            transaction_id: transaction_id.map(str::to_owned),
            code: RejectionCode::TimestampTooOld,
            pointer: format!("/events/{index}/timestamp"),
            detail: "`timestamp` is \"old\"".to_owned(),
        })
    }

    #[test]
    fn the_answer_is_the_documented_one() {
        let outcomes = [
            Outcome::Accepted { transaction_id: Cow::Borrowed("a\"\n\u{1F600}") },
            rejected(1, Some("b")),
            Outcome::Duplicate { transaction_id: Cow::Borrowed("c") },
            rejected(3, None),
        ];
        let expected = r#"{"accepted":1,"rejected":2,"duplicates":1,"events":[{"index":0,"transaction_id":"a\"\n😀","status":"accepted"},{"index":1,"transaction_id":"b","status":"rejected","code":"timestamp_too_old","pointer":"/events/1/timestamp","detail":"`timestamp` is \"old\""},{"index":2,"transaction_id":"c","status":"duplicate"},{"index":3,"status":"rejected","code":"timestamp_too_old","pointer":"/events/3/timestamp","detail":"`timestamp` is \"old\""}]}"#;
        let answer = Answer::new(&outcomes);
        assert_eq!(answer.rejections, [(RejectionCode::TimestampTooOld, 2)]);
        assert_eq!(answer.finish().unwrap(), expected);
    }

    #[test]
    fn without_an_accepted_event_the_list_is_in_the_refusal() {
        let problem = Answer::new(&[rejected(0, Some("b"))]).finish().unwrap_err();
        assert_eq!(problem.code(), ProblemCode::NoEventAccepted);
    }
}
