//! Reads an event from a record, whoever wrote it, and holds it to the limits of the API.

use super::UndecodableCode as Code;
use super::{Undecodable, VALUE_BYTES_MAX, VERSION, YEARS};
use crate::PartitionId;
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use fault_injection::{Sabotage, sabotaged};
use metering::event::{CODE_BYTES_MAX, ID_BYTES_MAX, ORGANIZATION_ID_BYTES_MAX};
use metering::identity::partition_of;
use metering::json_text::{Kind, unescape};
use metering::properties::Properties;
use metering::{Quantity, UsageEvent};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads the value of a record: the event, and the epoch of the topic it was written to.
///
/// Fields that this version does not know are ignored, so that later writers can add some.
pub fn decode(value: &[u8]) -> Result<(UsageEvent<'_>, u16), Undecodable> {
    if value.is_empty() {
        return Err(Undecodable::new(Code::EmptyValue, "the record has no value"));
    }
    if value.len() > VALUE_BYTES_MAX {
        let detail =
            format!("the value has {} bytes; at most {VALUE_BYTES_MAX} are read", value.len());
        return Err(Undecodable::new(Code::ValueTooLarge, detail));
    }
    let text = std::str::from_utf8(value)
        .map_err(|e| Undecodable::new(Code::NotUtf8, format!("the value is not UTF-8: {e}")))?;
    let fields = Fields::read(text)?;
    let version = integer("v", fields.v)?;
    if version != VERSION {
        let detail = format!("the value has version {version}; only {VERSION} is known");
        return Err(Undecodable::new(Code::UnknownVersion, detail));
    }
    let topic_epoch = integer("topic_epoch", fields.topic_epoch)?;
    let event = UsageEvent {
        organization_id: required_text(
            "organization_id",
            fields.organization_id,
            ORGANIZATION_ID_BYTES_MAX,
        )?,
        transaction_scope: optional_text(
            "transaction_scope",
            fields.transaction_scope,
            ID_BYTES_MAX,
        )?,
        transaction_id: required_text("transaction_id", fields.transaction_id, ID_BYTES_MAX)?,
        external_customer_id: required_text(
            "external_customer_id",
            fields.external_customer_id,
            ID_BYTES_MAX,
        )?,
        external_subscription_id: optional_text(
            "external_subscription_id",
            fields.external_subscription_id,
            ID_BYTES_MAX,
        )?,
        code: required_text("code", fields.code, CODE_BYTES_MAX)?,
        timestamp: timestamp("timestamp", fields.timestamp)?,
        value: quantity(fields.value)?,
        properties: properties(fields.properties)?,
        accepted_at: timestamp("accepted_at", fields.accepted_at)?,
    };
    Ok((event, topic_epoch))
}

/// Checks that `event` stands where every copy of it stands: its key (when it has one) is its
/// identity, and `partition` owns that identity. A copy elsewhere would escape deduplication.
pub fn check_record(
    partition: PartitionId,
    partition_count: u16,
    key: &[u8],
    event: &UsageEvent<'_>,
) -> Result<(), Undecodable> {
    let owner = if key.is_empty() {
        let mut identity = Vec::with_capacity(128);
        event.write_identity_key(&mut identity);
        partition_of(&identity, partition_count)
    } else if is_identity_key(key, event) || sabotaged(Sabotage::AmbiguousKey) {
        partition_of(key, partition_count)
    } else {
        let detail = "the record's key is not the identity of its event, \
                      (organization_id, transaction_scope, transaction_id) as three netstrings";
        return Err(Undecodable::new(Code::WrongKey, detail));
    };
    if owner != partition {
        let detail = format!(
            "the event belongs to partition {owner} of {partition_count}, not to {partition}"
        );
        return Err(Undecodable::new(Code::WrongPartition, detail));
    }
    Ok(())
}

fn is_identity_key(key: &[u8], event: &UsageEvent<'_>) -> bool {
    [&event.organization_id, &event.transaction_scope, &event.transaction_id]
        .into_iter()
        .try_fold(key, |rest, part| strip_netstring(rest, part.as_bytes()))
        .is_some_and(<[u8]>::is_empty)
}

/// What follows the netstring of `part` in `key`, if that is how `key` starts.
fn strip_netstring<'k>(key: &'k [u8], part: &[u8]) -> Option<&'k [u8]> {
    let colon = key.iter().take(8).position(|byte| *byte == b':')?;
    let (length, rest) = key.split_at(colon);
    let canonical = length == b"0" || length.first().is_some_and(|digit| *digit != b'0');
    let read: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    if !canonical || !length.iter().all(u8::is_ascii_digit) || read != part.len() {
        return None;
    }
    rest[1..].strip_prefix(part)?.strip_prefix(b",")
}

/// The JSON text of each field; `null` counts as absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    topic_epoch: Option<&'a RawValue>,
    organization_id: Option<&'a RawValue>,
    transaction_scope: Option<&'a RawValue>,
    transaction_id: Option<&'a RawValue>,
    external_customer_id: Option<&'a RawValue>,
    external_subscription_id: Option<&'a RawValue>,
    code: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    properties: Option<&'a RawValue>,
    accepted_at: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, Undecodable> {
        let trimmed = text.trim_start_matches([' ', '\t', '\n', '\r']);
        // serde would also take an array of the fields in order.
        if !trimmed.starts_with('{') {
            let valid: Result<&RawValue, _> = serde_json::from_str(text);
            return Err(match valid {
                Ok(_) => Undecodable::new(Code::NotAnObject, "the value is not a JSON object"),
                Err(error) => malformed(&error),
            });
        }
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                let detail = "a field stands twice in the value";
                return Undecodable::new(Code::DuplicateField, detail);
            }
            malformed(&error)
        })
    }
}

fn malformed(error: &serde_json::Error) -> Undecodable {
    let detail =
        format!("the value is not JSON at line {}, column {}", error.line(), error.column());
    Undecodable::new(Code::MalformedJson, detail)
}

fn missing(name: &str) -> Undecodable {
    Undecodable::new(Code::MissingField, format!("`{name}` is missing"))
}

fn wrong_type(name: &str, literal: &str, wanted: &str) -> Undecodable {
    let detail = format!("`{name}` is {}, not {wanted}", Kind::of(literal).name());
    Undecodable::new(Code::InvalidField, detail)
}

fn integer(name: &'static str, value: Option<&RawValue>) -> Result<u16, Undecodable> {
    let literal = value.ok_or_else(|| missing(name))?.get();
    if Kind::of(literal) != Kind::Number {
        return Err(wrong_type(name, literal, "an integer"));
    }
    literal.parse().map_err(|_| {
        let detail = format!("`{name}` is not an integer from 0 to {}", u16::MAX);
        Undecodable::new(Code::InvalidField, detail)
    })
}

fn required_text<'a>(
    name: &'static str,
    value: Option<&'a RawValue>,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Undecodable> {
    let text = text(name, value.ok_or_else(|| missing(name))?.get(), bytes_max)?;
    if text.trim().is_empty() {
        return Err(Undecodable::new(Code::InvalidField, format!("`{name}` is blank")));
    }
    Ok(text)
}

fn optional_text<'a>(
    name: &'static str,
    value: Option<&'a RawValue>,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Undecodable> {
    value.map_or(Ok(Cow::Borrowed("")), |value| text(name, value.get(), bytes_max))
}

fn text<'a>(name: &str, literal: &'a str, bytes_max: usize) -> Result<Cow<'a, str>, Undecodable> {
    let invalid = |detail: String| Undecodable::new(Code::InvalidField, detail);
    if Kind::of(literal) != Kind::String {
        return Err(wrong_type(name, literal, "a string"));
    }
    let text = unescape(literal)
        .ok_or_else(|| invalid(format!("`{name}` holds a lone surrogate escape")))?;
    if text.len() > bytes_max {
        return Err(invalid(format!(
            "`{name}` has {} bytes; at most {bytes_max} are allowed",
            text.len()
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("`{name}` holds a control character")));
    }
    Ok(text)
}

fn timestamp(name: &'static str, value: Option<&RawValue>) -> Result<DateTime<Utc>, Undecodable> {
    let literal = value.ok_or_else(|| missing(name))?.get();
    if Kind::of(literal) != Kind::String {
        return Err(wrong_type(name, literal, "a string"));
    }
    let invalid = |detail: String| Undecodable::new(Code::InvalidTimestamp, detail);
    let at = unescape(literal).and_then(|text| canonical(text.as_bytes()).or_else(|| any(&text)));
    let at = at.ok_or_else(|| invalid(format!("`{name}` is not RFC 3339 with an offset")))?;
    if !YEARS.contains(&at.year()) {
        return Err(invalid(format!(
            "`{name}` is outside of the years {} to {}",
            YEARS.start(),
            YEARS.end()
        )));
    }
    Ok(at)
}

/// What `encode` writes, `2026-11-21T12:00:00.000Z`.
fn canonical(text: &[u8]) -> Option<DateTime<Utc>> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let separators = [4, 7, 10, 13, 16, 19, 23].map(|at| text[at]);
    if separators != *b"--T::.Z" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range].iter().try_fold(0_u32, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
        })
    };
    let year = i32::try_from(number(0..4)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(5..7)?, number(8..10)?)?;
    let time = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    Some(date.and_hms_milli_opt(time.0, time.1, time.2, time.3)?.and_utc())
}

/// Any RFC 3339, cut to the millisecond; a leap second becomes the next one, as at the API.
fn any(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    DateTime::from_timestamp_millis(at.timestamp_millis())
}

fn quantity(value: Option<&RawValue>) -> Result<Option<Quantity>, Undecodable> {
    let Some(literal) = value.map(RawValue::get) else { return Ok(None) };
    if Kind::of(literal) != Kind::String {
        return Err(wrong_type("value", literal, "a string that holds a decimal number"));
    }
    let text = unescape(literal).unwrap_or(Cow::Borrowed(""));
    let quantity = Quantity::parse(&text)
        .map_err(|error| Undecodable::new(Code::InvalidValue, format!("`value` {error}")))?;
    Ok(Some(quantity))
}

fn properties(value: Option<&RawValue>) -> Result<Properties<'_>, Undecodable> {
    let Some(value) = value else { return Ok(Properties::EMPTY) };
    Properties::parse(value.get())
        .map_err(|fault| Undecodable::new(Code::InvalidProperties, fault.detail))
}
