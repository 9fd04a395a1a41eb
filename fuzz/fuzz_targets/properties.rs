//! Properties: a recursive reading of the same JSON finds the same faults, and equal content has equal fingerprints.
//!
//! The input is one JSON text, or two with a zero byte between them, which are compared.
#![no_main]

use fuzz::{decimal, json};
use libfuzzer_sys::fuzz_target;
use metering::RejectionCode as Code;
use metering::properties::{BYTES_MAX, DEPTH_MAX, KEY_BYTES_MAX, KEYS_MAX, Properties};
use num_bigint::BigInt;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut texts = text.splitn(2, '\0').map(|part| part.trim_matches([' ', '\t', '\n', '\r']));
    // What callers pass is known to be JSON.
    let mut read = || texts.next().filter(|part| json::is_json(part)).and_then(check);
    if let (Some(first), Some(second)) = (read(), read()) {
        assert_eq!(first.content == second.content, first.fingerprint == second.fingerprint);
    }
});

struct Checked {
    content: Content,
    fingerprint: u64,
}

/// Checks one JSON text against the plain reading; the content when the text is accepted.
fn check(text: &str) -> Option<Checked> {
    let mut faults = Vec::new();
    if text.len() > BYTES_MAX {
        faults.push(Code::PropertiesTooLarge);
    }
    let mut keys = 0;
    let content = content(text, 1, &mut keys, &mut faults);
    if !matches!(content, Content::Object(_)) {
        faults.push(Code::InvalidType);
    }
    if keys > KEYS_MAX {
        faults.push(Code::TooManyProperties);
    }
    match Properties::parse(text) {
        Ok(properties) => {
            assert_eq!(faults, [], "{text}");
            assert_eq!(properties.as_str(), text);
            check_rewritten(&content, properties.fingerprint());
            check_members(text);
            Some(Checked { content, fingerprint: properties.fingerprint() })
        }
        Err(fault) => {
            let small = text.len() < 2000;
            let shown = if small { text } else { "a long text" };
            // A number may be refused by its digits although a double just holds it.
            let cautious = fault.code == Code::InvalidProperty && has_large_exponent(text);
            assert!(faults.contains(&fault.code) || cautious, "{shown}: {fault:?}, not {faults:?}");
            None
        }
    }
}

fn has_large_exponent(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.split('e').skip(1).any(|rest| rest.starts_with(|c: char| c == '+' || c.is_ascii_digit()))
        || text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 300)
}

/// What a JSON text says, without the order of keys and the writing of strings and numbers.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// Sorted by key.
    Object(Vec<(String, Content)>),
    Array(Vec<Content>),
    String(String),
    Quantity(BigInt),
    /// A number that is no quantity, as written; `true`, `false` or `null`.
    Other(String),
    /// Too deep or not readable, which is a fault.
    Unread,
}

/// Collects every fault of `text`, whose objects and arrays nest from `depth` on.
fn content(text: &str, depth: usize, keys: &mut usize, faults: &mut Vec<Code>) -> Content {
    if text.starts_with(['{', '[']) && depth > DEPTH_MAX {
        faults.push(Code::PropertiesTooDeep);
        return Content::Unread;
    }
    if let Some(members) = json::members(text) {
        let members = members.into_iter().map(|(key, value)| {
            *keys += 1;
            let key = string(key, faults);
            if key.len() > KEY_BYTES_MAX {
                faults.push(Code::InvalidProperty);
            }
            (key, content(value, depth + 1, keys, faults))
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by(|a, b| a.0.cmp(&b.0));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            faults.push(Code::DuplicateProperty);
        }
        return Content::Object(members);
    }
    if let Some(elements) = json::elements(text) {
        let read = |element| content(element, depth + 1, keys, faults);
        return Content::Array(elements.into_iter().map(read).collect());
    }
    match text.as_bytes()[0] {
        b'"' => Content::String(string(text, faults)),
        b't' | b'f' | b'n' => Content::Other(text.to_owned()),
        _ => number(text, faults),
    }
}

fn string(literal: &str, faults: &mut Vec<Code>) -> String {
    json::string(literal).unwrap_or_else(|| {
        faults.push(Code::InvalidString);
        String::new()
    })
}

/// Queries read numbers as 64-bit integers or as doubles; anything beyond is a fault.
fn number(text: &str, faults: &mut Vec<Code>) -> Content {
    let integer = !text.contains(['.', 'e', 'E']);
    let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
    let finite = text.parse::<f64>().is_ok_and(f64::is_finite);
    if !finite || (integer && !fits) {
        faults.push(Code::InvalidProperty);
    }
    match decimal::read(text) {
        decimal::Reading::Units(units) => Content::Quantity(units),
        _ => Content::Other(text.to_owned()),
    }
}

/// The same content with its keys the other way round, every character escaped and white space between.
fn check_rewritten(content: &Content, fingerprint: u64) {
    let mut rewritten = String::new();
    write(content, &mut rewritten);
    // Escapes may make the text longer than the limit.
    if rewritten.len() <= BYTES_MAX {
        let read = Properties::parse(&rewritten).map(|properties| properties.fingerprint());
        assert_eq!(read, Ok(fingerprint), "{rewritten}");
    }
}

fn write(content: &Content, out: &mut String) {
    match content {
        Content::Object(members) => {
            out.push('{');
            for (n, (key, value)) in members.iter().rev().enumerate() {
                out.push_str(if n == 0 { " " } else { "\n," });
                write_string(key, out);
                out.push_str(" :\t");
                write(value, out);
            }
            out.push('}');
        }
        Content::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { "\r, " });
                write(element, out);
            }
            out.push(']');
        }
        Content::String(text) => write_string(text, out),
        Content::Quantity(units) => write_quantity(units, out),
        Content::Other(text) => out.push_str(text),
        Content::Unread => unreachable!("only accepted content is written"),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04X}"));
    }
    out.push('"');
}

/// Written with an exponent, as no producer does: how a number is written does not count.
fn write_quantity(units: &BigInt, out: &mut String) {
    out.push_str(&format!("{units}e-12"));
}

/// Every top-level member is found by its name, as its text.
fn check_members(text: &str) {
    for (key, value) in json::members(text).unwrap_or_default() {
        let name = json::string(key).expect("accepted keys are strings");
        let (_, found) = Properties::parse_and_get(text, Some(&name)).expect("accepted before");
        assert_eq!(found, Some(value), "{name}");
    }
}
