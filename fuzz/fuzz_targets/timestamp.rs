//! Timestamps: the API and the reader of the log agree with a reading of RFC 3339 by the letter.
#![no_main]

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use event_log::wire::{self, UndecodableCode, YEARS};
use fuzz::instant::{self, Reading};
use libfuzzer_sys::fuzz_target;
use metering::validate::Outcome;
use metering::{EventRequest, MetricCatalog, RejectionCode, UsageEvent, ValidationRules, validate};

/// 2026-11-21T12:00:00.500Z.
const NOW_MILLIS: i64 = 1_795_262_400_500;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let reading = instant::read(text);
    let literal = serde_json::to_string(text).expect("a string is JSON");
    let usual = ValidationRules { accept_unknown_codes: true, ..ValidationRules::default() };
    let wide = ValidationRules {
        max_age: TimeDelta::days(60 * 365),
        max_ahead: TimeDelta::days(300 * 365),
        ..usual
    };
    let taken = [usual, wide].map(|rules| check_api(text, &literal, reading, &rules));
    let logged = check_log(text, &literal, reading);
    // The two readers take the same texts. The API tells it for instants within its rules only.
    let in_wide = reading.millis().is_some_and(|millis| is_within(millis, &wide));
    assert!(!in_wide || taken[1] || logged.is_none(), "{text}: only the log takes it");
});

/// Whether the API takes `literal` as a timestamp.
fn check_api(text: &str, literal: &str, reading: Reading, rules: &ValidationRules) -> bool {
    let body = format!(
        r#"{{"transaction_id":"t","external_customer_id":"c","code":"m","timestamp":{literal}}}"#
    );
    let now = DateTime::from_timestamp_millis(NOW_MILLIS).expect("a valid instant");
    let request = EventRequest::parse(&body, 1).expect("one object is a request");
    let validated = validate(&request, "org", &MetricCatalog::default(), rules, now);
    let [outcome] = &validated.outcomes[..] else { panic!("{text}: not one outcome") };
    let expected = reading.millis();
    match outcome {
        Outcome::Accepted { .. } => {
            let [event] = &validated.accepted[..] else { panic!("{text}: not one event") };
            assert_eq!(Some(event.timestamp.timestamp_millis()), expected, "{text}");
            assert!(expected.is_some_and(|millis| is_within(millis, rules)), "{text}: accepted");
            check_round_trip(event);
            return true;
        }
        Outcome::Duplicate { .. } => panic!("{text}: a duplicate of nothing"),
        Outcome::Rejected(rejection) => match rejection.code {
            RejectionCode::InvalidTimestamp => {
                assert!(!matches!(reading, Reading::Strict(_)), "{text}: {reading:?} is refused");
            }
            RejectionCode::TimestampTooOld => {
                let earliest = NOW_MILLIS - rules.max_age.num_milliseconds();
                assert!(expected.is_some_and(|millis| millis < earliest), "{text}: too old");
            }
            RejectionCode::TimestampInFuture => {
                let latest = NOW_MILLIS + rules.max_ahead.num_milliseconds();
                assert!(expected.is_some_and(|millis| millis > latest), "{text}: in the future");
            }
            other => panic!("{text}: {other:?}"),
        },
    }
    false
}

fn is_within(millis: i64, rules: &ValidationRules) -> bool {
    let earliest = NOW_MILLIS - rules.max_age.num_milliseconds();
    (earliest..=NOW_MILLIS + rules.max_ahead.num_milliseconds()).contains(&millis)
}

/// What is written to the log is read as the same instant, or parked when no column could hold it.
fn check_round_trip(event: &UsageEvent<'_>) {
    let mut value = Vec::new();
    wire::encode(event, 1, &mut value);
    match wire::decode(&value) {
        Ok((read, _)) => assert_eq!(read.timestamp, event.timestamp),
        Err(error) => {
            assert_eq!(error.code, UndecodableCode::InvalidTimestamp, "{error}");
            assert!(!YEARS.contains(&event.timestamp.year()), "{error}");
        }
    }
}

/// The instant that the reader of the log takes `literal` for.
fn check_log(text: &str, literal: &str, reading: Reading) -> Option<DateTime<Utc>> {
    let value = format!(
        r#"{{"v":1,"topic_epoch":1,"organization_id":"o","transaction_id":"t","external_customer_id":"c","code":"m","timestamp":{literal},"accepted_at":"2026-11-21T12:00:00.000Z"}}"#
    );
    let years = |millis| DateTime::from_timestamp_millis(millis).map(|at| at.year());
    let storable = reading.millis().and_then(years).is_some_and(|year| YEARS.contains(&year));
    match wire::decode(value.as_bytes()) {
        Ok((event, _)) => {
            assert!(storable, "{text}: cannot be stored");
            assert_eq!(Some(event.timestamp.timestamp_millis()), reading.millis(), "{text}");
            Some(event.timestamp)
        }
        Err(error) => {
            assert_eq!(error.code, UndecodableCode::InvalidTimestamp, "{text}: {error}");
            assert!(!storable || !matches!(reading, Reading::Strict(_)), "{text}: {error}");
            None
        }
    }
}
