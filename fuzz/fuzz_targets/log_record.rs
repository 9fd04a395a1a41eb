//! Log records: whatever is in a record, it is an event within the limits or parked with a reason.
//!
//! The input is the record's value; after a zero byte, which no JSON holds, comes its key.
#![no_main]

use chrono::{DateTime, Datelike, Utc};
use event_log::wire::{self, UndecodableCode as Code, YEARS};
use fuzz::{decimal, instant, json};
use libfuzzer_sys::fuzz_target;
use metering::UsageEvent;
use metering::identity::partition_of;
use serde_json::value::RawValue;

const PARTITIONS: u16 = 12;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (value, key) = data.split_at(end);
    match wire::decode(value) {
        Ok((event, epoch)) => {
            check_limits(&event);
            check_content(value, &event, epoch);
            check_round_trip(&event, epoch);
            check_place(&event, key.get(1..).unwrap_or_default());
        }
        Err(error) => {
            assert!(error.detail.len() > 10, "a sentence: {error}");
            check_reason(value, error.code);
        }
    }
});

fn check_limits(event: &UsageEvent<'_>) {
    let texts = [
        (&event.organization_id, 1, 64),
        (&event.transaction_scope, 0, 255),
        (&event.transaction_id, 1, 255),
        (&event.external_customer_id, 1, 255),
        (&event.external_subscription_id, 0, 255),
        (&event.code, 1, 128),
    ];
    for (text, bytes_min, bytes_max) in texts {
        assert!((bytes_min..=bytes_max).contains(&text.len()), "{event:?}");
        assert!(bytes_min == 0 || !text.trim().is_empty(), "{event:?}");
        assert!(!text.chars().any(char::is_control), "{event:?}");
    }
    for at in [event.timestamp, event.accepted_at] {
        assert!(YEARS.contains(&at.year()), "{event:?}");
        assert_eq!(DateTime::<Utc>::from_timestamp_millis(at.timestamp_millis()), Some(at));
    }
}

/// Every field is what a plain reading of the JSON finds.
fn check_content(value: &[u8], event: &UsageEvent<'_>, epoch: u16) {
    let text = std::str::from_utf8(value).expect("a decoded value is UTF-8");
    let members = json::members(text).expect("a decoded value is an object");
    let field = |name| json::member(&members, name);
    let string = |name| field(name).and_then(json::string).unwrap_or_default();
    assert_eq!(field("v"), Some("1"));
    assert_eq!(field("topic_epoch"), Some(epoch.to_string().as_str()));
    assert_eq!(string("organization_id"), event.organization_id);
    assert_eq!(string("transaction_scope"), event.transaction_scope);
    assert_eq!(string("transaction_id"), event.transaction_id);
    assert_eq!(string("external_customer_id"), event.external_customer_id);
    assert_eq!(string("external_subscription_id"), event.external_subscription_id);
    assert_eq!(string("code"), event.code);
    let millis = |name| instant::read(&string(name)).millis();
    assert_eq!(millis("timestamp"), Some(event.timestamp.timestamp_millis()));
    assert_eq!(millis("accepted_at"), Some(event.accepted_at.timestamp_millis()));
    let units = field("value").map(|_| decimal::read(&string("value")));
    let decoded = event.value.map(|quantity| decimal::Reading::Units(quantity.units().into()));
    assert_eq!(units, decoded);
    assert_eq!(field("properties").unwrap_or("{}"), event.properties.as_str());
}

fn check_round_trip(event: &UsageEvent<'_>, epoch: u16) {
    let mut written = Vec::new();
    wire::encode(event, epoch, &mut written);
    let (read, read_epoch) = wire::decode(&written).expect("what is written is read");
    assert_eq!((&read, read_epoch), (event, epoch));
    assert_eq!(read.payload_fingerprint(), event.payload_fingerprint());
    let mut again = Vec::new();
    wire::encode(&read, epoch, &mut again);
    assert_eq!(again, written, "a replay writes the same bytes");
}

/// Exactly the key of its identity, or none, lets the event stand, and in one partition only.
fn check_place(event: &UsageEvent<'_>, key: &[u8]) {
    let netstring = |text: &str| format!("{}:{text},", text.len());
    let identity = [&event.organization_id, &event.transaction_scope, &event.transaction_id]
        .map(|part| netstring(part))
        .concat();
    let owner = partition_of(identity.as_bytes(), PARTITIONS);
    let check = |partition, key: &[u8]| {
        wire::check_record(partition, PARTITIONS, key, event).map_err(|error| error.code)
    };
    for good in [&b""[..], identity.as_bytes()] {
        assert_eq!(check(owner, good), Ok(()));
        assert_eq!(check((owner + 1) % PARTITIONS, good), Err(Code::WrongPartition));
    }
    if !key.is_empty() && key != identity.as_bytes() {
        assert_eq!(check(owner, key), Err(Code::WrongKey), "{}", key.escape_ascii());
    }
}

fn check_reason(value: &[u8], code: Code) {
    assert_eq!(code == Code::EmptyValue, value.is_empty());
    let Ok(text) = std::str::from_utf8(value) else {
        assert_eq!(code, Code::NotUtf8);
        return;
    };
    assert_ne!(code, Code::NotUtf8);
    let valid = serde_json::from_str::<&RawValue>(text).is_ok();
    if valid {
        let members = json::members(text);
        assert_eq!(code == Code::NotAnObject, members.is_none(), "{text}");
        // A name with a lone surrogate is JSON by its grammar, but no text that could be read.
        let unreadable = |(name, _): &(&str, &str)| json::string(name).is_none();
        let has_unreadable = members.is_some_and(|members| members.iter().any(unreadable));
        assert!(code != Code::MalformedJson || has_unreadable, "{text}");
    } else {
        // A field that stands twice is noticed before the rest of the text is read.
        let possible = [Code::EmptyValue, Code::MalformedJson, Code::DuplicateField];
        assert!(possible.contains(&code), "{text}: {code:?}");
    }
}
