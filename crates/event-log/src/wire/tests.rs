use super::UndecodableCode as Code;
use super::*;
use chrono::{DateTime, Utc};
use metering::identity::partition_of;
use metering::properties::Properties;
use metering::{Quantity, UsageEvent};
use proptest::prelude::*;
use std::borrow::Cow;

/// The example of docs/log-format.md. Logs full of it exist, so it decodes for ever.
const GOLDEN: &str = r#"{"v":1,"topic_epoch":1,"organization_id":"org_demo","transaction_scope":"meter-7","transaction_id":"txn-0000001","external_customer_id":"customer-1","external_subscription_id":"sub \"1\"\\é","code":"api_calls","timestamp":"2026-11-21T12:00:00.000Z","value":"-12.000000000005","properties":{"region":"eu-west-1"},"accepted_at":"2026-11-21T12:00:01.250Z"}"#;

fn golden_event() -> UsageEvent<'static> {
    UsageEvent {
        transaction_scope: Cow::Borrowed("meter-7"),
        external_subscription_id: Cow::Borrowed("sub \"1\"\\é"),
        timestamp: at("2026-11-21T12:00:00Z"),
        value: Some(Quantity::parse("-12.000000000005").unwrap()),
        accepted_at: at("2026-11-21T12:00:01.25Z"),
        ..UsageEvent::example()
    }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn encoded(event: &UsageEvent<'_>, epoch: u16) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    encode(event, epoch, &mut out);
    assert!(out.starts_with(b"kept"), "encode appends");
    out.split_off(4)
}

/// The code of the golden value after replacing `from` by `to`.
fn refused(from: &str, to: &str) -> Code {
    let changed = GOLDEN.replacen(from, to, 1);
    assert_ne!(changed, GOLDEN, "`{from}` is part of the golden value");
    decode(changed.as_bytes()).expect_err(to).code
}

#[test]
fn golden_bytes_are_written_and_read() {
    assert_eq!(String::from_utf8(encoded(&golden_event(), 1)).unwrap(), GOLDEN);
    assert_eq!(decode(GOLDEN.as_bytes()).unwrap(), (golden_event(), 1));
}

#[test]
fn the_format_page_shows_the_golden_bytes() {
    let page = include_str!("../../../../docs/log-format.md");
    assert!(page.contains(GOLDEN));
    for code in Code::ALL {
        assert!(page.contains(&format!("`{}`", code.as_str())), "{}", code.as_str());
    }
}

#[test]
fn optional_fields_are_left_out_when_empty() {
    let event = UsageEvent { properties: Properties::EMPTY, ..UsageEvent::example() };
    let text = String::from_utf8(encoded(&event, 9)).unwrap();
    for absent in ["transaction_scope", "external_subscription_id", "value", "properties"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    assert_eq!(decode(text.as_bytes()).unwrap(), (event, 9));
}

#[test]
fn null_is_absent_and_unknown_fields_are_ignored() {
    let text = GOLDEN
        .replace("\"meter-7\"", "null")
        .replace("{\"v\"", " {\"later\":[{\"v\":2}],\"v\"")
        .replace("\"-12.000000000005\"", "null");
    let (event, _) = decode(text.as_bytes()).unwrap();
    assert_eq!(event.transaction_scope, "");
    assert_eq!(event.value, None);
}

#[test]
fn other_writers_may_escape_and_use_offsets() {
    let text = GOLDEN
        .replace("org_demo", "org\\u005fdemo")
        .replace("12:00:00.000Z", "14:00:00.0009+02:00");
    assert_eq!(decode(text.as_bytes()).unwrap().0, golden_event());
}

#[test]
fn a_leap_second_becomes_the_next_second() {
    let text = GOLDEN.replace("2026-11-21T12:00:00.000Z", "2016-12-31T23:59:60Z");
    assert_eq!(decode(text.as_bytes()).unwrap().0.timestamp, at("2017-01-01T00:00:00Z"));
}

#[test]
fn refusals_have_stable_codes() {
    assert_eq!(decode(b"").unwrap_err().code, Code::EmptyValue);
    assert_eq!(decode(b"\xff{}").unwrap_err().code, Code::NotUtf8);
    assert_eq!(decode(b"{").unwrap_err().code, Code::MalformedJson);
    assert_eq!(decode(b"[1,").unwrap_err().code, Code::MalformedJson);
    for other in ["[1,1,\"org\"]", "\"text\"", "12", "null", "true"] {
        assert_eq!(decode(other.as_bytes()).unwrap_err().code, Code::NotAnObject, "{other}");
    }
    assert_eq!(refused("{\"v\":1", "{\"v\":1,\"v\":1"), Code::DuplicateField);
    assert_eq!(refused("\"v\":1", "\"v\":2"), Code::UnknownVersion);
    assert_eq!(refused("\"v\":1,", ""), Code::MissingField);
    assert_eq!(refused("\"v\":1", "\"v\":1.0"), Code::InvalidField);
    assert_eq!(refused("\"topic_epoch\":1", "\"topic_epoch\":65536"), Code::InvalidField);
    assert_eq!(refused("\"topic_epoch\":1", "\"topic_epoch\":\"1\""), Code::InvalidField);
    assert_eq!(refused("\"org_demo\"", "null"), Code::MissingField);
    assert_eq!(refused("\"org_demo\"", "7"), Code::InvalidField);
    assert_eq!(refused("\"org_demo\"", "\" \""), Code::InvalidField);
    assert_eq!(refused("org_demo", "\\ud800"), Code::InvalidField);
    assert_eq!(refused("org_demo", "\\u0000"), Code::InvalidField);
    assert_eq!(refused("\"-12.000000000005\"", "-12"), Code::InvalidField);
    assert_eq!(refused("-12.000000000005", "1e999999"), Code::InvalidValue);
    assert_eq!(refused("-12.000000000005", "NaN"), Code::InvalidValue);
    assert_eq!(refused("-12.000000000005", "0.0000000000001"), Code::InvalidValue);
    assert_eq!(refused("{\"region\":\"eu-west-1\"}", "[]"), Code::InvalidProperties);
    assert_eq!(refused("eu-west-1", "\\udc00"), Code::InvalidProperties);
    assert_eq!(refused("\"eu-west-1\"", "1e999999"), Code::InvalidProperties);
    assert_eq!(refused("2026-11-21T12:00:00.000Z", "2026-11-21 noon"), Code::InvalidTimestamp);
    assert_eq!(
        refused("2026-11-21T12:00:00.000Z", "2026-02-30T12:00:00.000Z"),
        Code::InvalidTimestamp
    );
}

/// A version that is not ours may have other types everywhere; it is still told by its version.
#[test]
fn another_version_is_told_before_its_fields() {
    let error = decode(br#"{"organization_id":7,"v":2}"#).unwrap_err();
    assert_eq!(error.code, Code::UnknownVersion);
}

#[test]
fn timestamps_are_bounded_by_the_year() {
    for good in ["1970-01-01T00:00:00.000Z", "2261-12-31T23:59:59.999Z"] {
        let text = GOLDEN.replace("2026-11-21T12:00:00.000Z", good);
        assert_eq!(decode(text.as_bytes()).unwrap().0.timestamp, at(good));
    }
    for bad in ["1969-12-31T23:59:59.999Z", "2262-01-01T00:00:00.000Z", "9999-01-01T00:00:00Z"] {
        assert_eq!(refused("2026-11-21T12:00:00.000Z", bad), Code::InvalidTimestamp, "{bad}");
        assert_eq!(refused("2026-11-21T12:00:01.250Z", bad), Code::InvalidTimestamp, "{bad}");
    }
}

#[test]
fn lengths_are_bounded() {
    let with = |bytes: usize| GOLDEN.replace("txn-0000001", &"x".repeat(bytes));
    assert!(decode(with(255).as_bytes()).is_ok());
    assert_eq!(decode(with(256).as_bytes()).unwrap_err().code, Code::InvalidField);
    let padded = |bytes: usize| {
        let padding = bytes - GOLDEN.len() - r#","later":"""#.len();
        GOLDEN.replace("250Z\"}", &format!("250Z\",\"later\":\"{}\"}}", " ".repeat(padding)))
    };
    assert_eq!(padded(VALUE_BYTES_MAX).len(), VALUE_BYTES_MAX);
    assert!(decode(padded(VALUE_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(
        decode(padded(VALUE_BYTES_MAX + 1).as_bytes()).unwrap_err().code,
        Code::ValueTooLarge
    );
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refused("\"eu-west-1\"", &deep), Code::InvalidProperties);
    assert_eq!(refused("\"org_demo\"", &deep), Code::InvalidField);
    let ignored = GOLDEN.replace("{\"v\"", &format!("{{\"later\":{deep},\"v\""));
    assert!(decode(ignored.as_bytes()).is_ok());
    assert_eq!(decode("[".repeat(500_000).as_bytes()).unwrap_err().code, Code::ValueTooLarge);
}

#[test]
fn a_cut_value_is_refused_at_every_byte() {
    for end in 0..GOLDEN.len() {
        assert!(decode(&GOLDEN.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_record_stands_in_its_partition_under_its_key() {
    let event = golden_event();
    let mut key = Vec::new();
    event.write_identity_key(&mut key);
    let owner = partition_of(&key, 12);
    assert_eq!(check_record(owner, 12, &key, &event), Ok(()));
    assert_eq!(check_record(owner, 12, b"", &event), Ok(()));
    let code = |partition, key: &[u8]| check_record(partition, 12, key, &event).unwrap_err().code;
    assert_eq!(code((owner + 1) % 12, &key), Code::WrongPartition);
    assert_eq!(code((owner + 1) % 12, b""), Code::WrongPartition);
    for wrong in [
        &b"txn-0000001"[..],
        b"8:org_demo,7:meter-7,11:txn-0000002,",
        b"08:org_demo,7:meter-7,11:txn-0000001,",
    ] {
        assert_eq!(code(owner, wrong), Code::WrongKey, "{}", String::from_utf8_lossy(wrong));
    }
    for end in 1..key.len() {
        assert_eq!(code(owner, &key[..end]), Code::WrongKey, "cut at {end}");
    }
    key.push(b',');
    assert_eq!(code(owner, &key), Code::WrongKey);
}

prop_compose! {
    fn events()(
        organization_id in "[a-zA-Z_\"\\\\é]{1,16}",
        scope in "\\PC{0,20}",
        transaction_id in "[^\\pC ]{1,20}",
        customer in "[^\\pC ]{1,20}",
        subscription in "\\PC{0,20}",
        millis in 0_i64..9_214_646_400_000,
        accepted in 0_i64..9_214_646_400_000,
        units in proptest::option::of(-(10_i128.pow(38) - 1)..10_i128.pow(38)),
        properties in "\\{\"[a-z]{1,8}\":( ?[1-9][0-9]{0,17}|\"\\PC{0}[a-z/]{0,9}\"|null|\\[true,\\{\\}\\])\\}",
        epoch in any::<u16>(),
    ) -> (UsageEvent<'static>, u16) {
        let instant = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        let properties: &'static str = Box::leak(properties.into_boxed_str());
        let event = UsageEvent {
            organization_id: Cow::Owned(organization_id),
            transaction_scope: Cow::Owned(scope),
            transaction_id: Cow::Owned(transaction_id),
            external_customer_id: Cow::Owned(customer),
            external_subscription_id: Cow::Owned(subscription),
            code: Cow::Borrowed("c"),
            timestamp: instant(millis),
            value: units.and_then(Quantity::from_units),
            properties: Properties::parse(properties).unwrap(),
            accepted_at: instant(accepted),
        };
        (event, epoch)
    }
}

proptest! {
    #[test]
    fn every_event_survives_the_round_trip((event, epoch) in events()) {
        let bytes = encoded(&event, epoch);
        let (read, read_epoch) = decode(&bytes).unwrap();
        prop_assert_eq!(&read, &event);
        prop_assert_eq!(read_epoch, epoch);
        prop_assert_eq!(read.payload_fingerprint(), event.payload_fingerprint());
        if let Some(value) = event.value {
            let text = format!("\"value\":\"{value}\"");
            prop_assert!(std::str::from_utf8(&bytes).unwrap().contains(&text));
        }
        let mut key = Vec::new();
        event.write_identity_key(&mut key);
        prop_assert_eq!(check_record(partition_of(&key, 7), 7, &key, &event), Ok(()));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn damaged_values_never_panic(at in 0..GOLDEN.len(), byte in any::<u8>()) {
        let mut bytes = GOLDEN.as_bytes().to_vec();
        bytes[at] = byte;
        let _outcome = decode(&bytes).map(|(event, _)| check_record(0, 3, b"1:a,", &event));
    }
}
