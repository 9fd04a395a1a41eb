use super::*;
use crate::Aggregation;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-21T12:00:00.500Z").unwrap().to_utc()
}

fn metric(code: &str, aggregation: Aggregation, field: Option<&str>) -> BillableMetric {
    BillableMetric { code: code.to_owned(), aggregation, field: field.map(str::to_owned) }
}

fn catalog() -> MetricCatalog {
    MetricCatalog::from_iter([
        metric("api_calls", Aggregation::Count, None),
        metric("storage", Aggregation::Sum, None),
        metric("tokens", Aggregation::Sum, Some("to/kens")),
        metric("users", Aggregation::UniqueCount, Some("user")),
    ])
}

fn event_json(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
    let mut event = json!({
        "transaction_id": "t-1", "external_customer_id": "c-1", "code": "api_calls", "timestamp": "2026-11-21T11:59:00Z"
    });
    change(event.as_object_mut().unwrap());
    event
}

fn with(field: &str, value: Value) -> String {
    event_json(|event| drop(event.insert(field.to_owned(), value))).to_string()
}

fn outcome_of(body: &str) -> Result<UsageEvent<'_>, Rejection> {
    let request = EventRequest::parse(body, 10).unwrap_or_else(|e| panic!("{body:.80}: {e}"));
    let mut validated = validate(&request, "org", &catalog(), &ValidationRules::default(), at());
    match validated.outcomes.pop().unwrap() {
        Outcome::Rejected(rejection) => Err(rejection),
        Outcome::Accepted { .. } | Outcome::Duplicate { .. } => {
            Ok(validated.accepted.pop().unwrap())
        }
    }
}

#[track_caller]
fn accept(body: &str) -> UsageEvent<'_> {
    outcome_of(body).unwrap_or_else(|rejection| panic!("{rejection:?}"))
}

#[track_caller]
fn refuse(body: &str, code: RejectionCode, pointer: &str) -> Rejection {
    let rejection = outcome_of(body).expect_err("the event is refused");
    assert_eq!(
        (rejection.code, rejection.pointer.as_str()),
        (code, pointer),
        "{}",
        rejection.detail
    );
    assert!(rejection.detail.len() > 20, "a sentence: {}", rejection.detail);
    rejection
}

#[test]
fn a_complete_event_keeps_everything_it_says() {
    let body = r#"{"transaction_id":"t-1","transaction_scope":"meter-7","external_customer_id":"c-1","external_subscription_id":"s-1",
        "code":"storage","timestamp":"2026-11-21T13:00:00.1234567+01:00","value":"12.500","properties":{"region":"eu"}}"#;
    let event = accept(body);
    assert_eq!(event.transaction_scope, "meter-7");
    assert_eq!(event.external_subscription_id, "s-1");
    assert_eq!(event.timestamp.to_rfc3339(), "2026-11-21T12:00:00.123+00:00");
    assert_eq!(event.value.map(|v| v.to_string()).as_deref(), Some("12.5"));
    assert_eq!(event.properties.as_str(), r#"{"region":"eu"}"#);
    assert_eq!(event.accepted_at, at());
    assert!(matches!(event.transaction_id, Cow::Borrowed(_)), "nothing was copied");
}

#[test]
fn required_fields_are_present_not_blank_and_not_too_long() {
    for (field, max) in [
        ("transaction_id", ID_BYTES_MAX),
        ("external_customer_id", ID_BYTES_MAX),
        ("code", CODE_BYTES_MAX),
    ] {
        let pointer = format!("/{field}");
        refuse(
            &event_json(|event| drop(event.remove(field))).to_string(),
            RejectionCode::MissingField,
            &pointer,
        );
        refuse(&with(field, Value::Null), RejectionCode::MissingField, &pointer);
        refuse(&with(field, json!("")), RejectionCode::BlankField, &pointer);
        refuse(&with(field, json!(" \u{a0} ")), RejectionCode::BlankField, &pointer);
        refuse(&with(field, json!(7)), RejectionCode::InvalidType, &pointer);
        refuse(&with(field, json!(["x"])), RejectionCode::InvalidType, &pointer);
        refuse(&with(field, json!("a\u{0}b")), RejectionCode::InvalidCharacters, &pointer);
        refuse(&with(field, json!("a\nb")), RejectionCode::InvalidCharacters, &pointer);
        refuse(&with(field, json!("x".repeat(max + 1))), RejectionCode::FieldTooLong, &pointer);
    }
    accept(&with("transaction_id", json!("é".repeat(ID_BYTES_MAX / 2))));
    refuse(
        &with("transaction_scope", json!("x".repeat(ID_BYTES_MAX + 1))),
        RejectionCode::FieldTooLong,
        "/transaction_scope",
    );
    accept(&with("transaction_scope", json!("x".repeat(ID_BYTES_MAX))));
    accept(&with("external_subscription_id", Value::Null));
}

#[test]
fn a_rejection_names_the_event() {
    let rejection = refuse(
        &with("external_customer_id", json!("")),
        RejectionCode::BlankField,
        "/external_customer_id",
    );
    assert_eq!(rejection.transaction_id.as_deref(), Some("t-1"));
    assert_eq!(
        refuse(&with("transaction_id", json!(5)), RejectionCode::InvalidType, "/transaction_id")
            .transaction_id,
        None
    );
    refuse(r#"{"transaction_id":"\ud800"}"#, RejectionCode::InvalidString, "/transaction_id");
}

#[test]
fn unknown_and_repeated_fields_are_refused() {
    refuse(&with("subscription/id", json!("x")), RejectionCode::UnknownField, "/subscription~1id");
    refuse(
        r#"{"transaction_id":"a","transaction_id":"b"}"#,
        RejectionCode::DuplicateField,
        "/transaction_id",
    );
    refuse(r#"{"transaction_id":"a","\ud800":"b"}"#, RejectionCode::InvalidString, "");
}

#[test]
fn timestamps_hold_at_the_bounds_and_one_past() {
    let stamp = |t: DateTime<Utc>| with("timestamp", json!(t.to_rfc3339()));
    let (oldest, latest) = (at() - TimeDelta::days(35), at() + TimeDelta::minutes(5));
    accept(&stamp(oldest));
    refuse(
        &stamp(oldest - TimeDelta::milliseconds(1)),
        RejectionCode::TimestampTooOld,
        "/timestamp",
    );
    accept(&stamp(latest));
    refuse(
        &stamp(latest + TimeDelta::milliseconds(1)),
        RejectionCode::TimestampInFuture,
        "/timestamp",
    );
    refuse(&stamp(at() + TimeDelta::hours(2)), RejectionCode::TimestampInFuture, "/timestamp");
}

#[test]
fn only_rfc_3339_is_a_timestamp() {
    for text in [
        "",
        "yesterday",
        "2026-11-21",
        "2026-11-21T12:00:00",
        "2026-13-01T00:00:00Z",
        "1763726400",
        "2026-11-21T24:00:00Z",
    ] {
        refuse(&with("timestamp", json!(text)), RejectionCode::InvalidTimestamp, "/timestamp");
    }
    refuse(&with("timestamp", json!(1_763_726_400)), RejectionCode::InvalidType, "/timestamp");
    refuse(&with("timestamp", Value::Null), RejectionCode::MissingField, "/timestamp");
    for year in ["0001", "1900", "1970"] {
        refuse(
            &with("timestamp", json!(format!("{year}-01-01T00:00:00Z"))),
            RejectionCode::TimestampTooOld,
            "/timestamp",
        );
    }
    for year in ["2038", "2106", "2262", "9999"] {
        refuse(
            &with("timestamp", json!(format!("{year}-12-31T00:00:00Z"))),
            RejectionCode::TimestampInFuture,
            "/timestamp",
        );
    }
}

#[test]
fn quantities_come_from_where_the_metric_says() {
    let storage = |value: &str| {
        with("value", json!(0))
            .replace("api_calls", "storage")
            .replace(r#""value":0"#, &format!(r#""value":{value}"#))
    };
    assert_eq!(
        accept(&storage("9007199254740993.0")).value.unwrap().to_string(),
        "9007199254740993"
    );
    assert_eq!(accept(&storage("\"-1e3\"")).value.unwrap().to_string(), "-1000");
    for bad in ["\"NaN\"", "\"\"", "\"1_0\"", "true", "[]", "{}", "1e999999", "\"\\ud800\""] {
        refuse(&storage(bad), RejectionCode::InvalidValue, "/value");
    }
    for big in ["1e26", "1e-13", "0.1234567890123"] {
        refuse(&storage(big), RejectionCode::ValueOutOfRange, "/value");
    }
    refuse(&storage("null"), RejectionCode::MissingValue, "/value");
    let tokens = |properties: Value| with("properties", properties).replace("api_calls", "tokens");
    assert_eq!(accept(&tokens(json!({"to/kens": "7.25"}))).value.unwrap().to_string(), "7.25");
    refuse(&tokens(json!({})), RejectionCode::MissingValue, "/properties/to~1kens");
    refuse(&tokens(json!({"to/kens": {}})), RejectionCode::InvalidValue, "/properties/to~1kens");
    let both = event_json(|event| {
        event.extend([
            ("code".to_owned(), json!("tokens")),
            ("value".to_owned(), json!(1)),
            ("properties".to_owned(), json!({"to/kens": 1})),
        ]);
    });
    refuse(&both.to_string(), RejectionCode::InvalidValue, "/value");
    let users = |properties: Value| with("properties", properties).replace("api_calls", "users");
    assert_eq!(accept(&users(json!({"user": "u-1"}))).value, None);
    refuse(&users(json!({"user": null})), RejectionCode::MissingValue, "/properties/user");
    refuse(&users(json!({"user": []})), RejectionCode::InvalidValue, "/properties/user");
    assert_eq!(
        accept(&with("value", json!(3))).value.unwrap().to_string(),
        "3",
        "a count may carry a quantity"
    );
}

#[test]
fn unknown_metric_codes_are_refused_unless_allowed() {
    let body = with("code", json!("nothing"));
    refuse(&body, RejectionCode::UnknownMetricCode, "/code");
    let request = EventRequest::parse(&body, 1).unwrap();
    let rules = ValidationRules { accept_unknown_codes: true, ..ValidationRules::default() };
    assert_eq!(validate(&request, "org", &catalog(), &rules, at()).accepted.len(), 1);
}

#[test]
fn repeats_within_a_request_are_duplicates_or_conflicts() {
    let event = |id: &str, scope: &str, region: &str| {
        format!(
            r#"{{"transaction_id":"{id}","transaction_scope":"{scope}","external_customer_id":"c","code":"api_calls","timestamp":"2026-11-21T12:00:00Z","properties":{{"region":"{region}"}}}}"#
        )
    };
    let bad = r#"{"transaction_id":"late"}"#;
    let events = [
        bad,
        &event("a", "", "eu"),
        &event("a", "", "eu"),
        &event("a", "", "us"),
        &event("a", "s", "us"),
        &event("late", "", "eu"),
    ];
    let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
    let request = EventRequest::parse(&body, 10).unwrap();
    let validated = validate(&request, "org", &catalog(), &ValidationRules::default(), at());
    let status = validated.outcomes.iter().map(|o| match o {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Duplicate { .. } => "duplicate",
        Outcome::Rejected(rejection) => rejection.code.as_str(),
    });
    assert_eq!(
        status.collect::<Vec<_>>(),
        ["missing_field", "accepted", "duplicate", "conflicting_duplicate", "accepted", "accepted"]
    );
    let conflict = validated.rejections().nth(1).unwrap();
    assert_eq!(
        (conflict.index, conflict.pointer.as_str(), conflict.transaction_id.as_deref()),
        (3, "/events/3/transaction_id", Some("a"))
    );
}

#[test]
fn hostile_events_do_not_take_the_good_ones_with_them() {
    let deep = format!(
        r#"{{"transaction_id":"deep","properties":{}{}}}"#,
        "[".repeat(500_000),
        "]".repeat(500_000)
    );
    let good = with("transaction_id", json!("good"));
    let body = format!(r#"{{"events":[{deep},{good},7,null,"x",[],{{}}]}}"#);
    let request = EventRequest::parse(&body, 10).unwrap();
    let validated = validate(&request, "org", &catalog(), &ValidationRules::default(), at());
    assert_eq!(validated.accepted.len(), 1);
    let codes: Vec<_> = validated.rejections().map(|r| r.code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "missing_field",
            "not_an_object",
            "not_an_object",
            "not_an_object",
            "not_an_object",
            "missing_field"
        ]
    );
}

#[test]
fn envelopes_are_told_apart() {
    let parse = |body: &str| EventRequest::parse(body, 2).map(|request| request.events().len());
    assert_eq!(parse(r#"{"code":"x"}"#), Ok(1));
    assert_eq!(parse(r#" {"events":[1,2]} "#), Ok(2));
    assert_eq!(parse(r#"{"events":[1,2,3]}"#), Err(RequestError::TooManyEvents { max: 2 }));
    assert_eq!(parse(r#"{"events":[]}"#), Err(RequestError::NoEvents));
    for shape in ["{}", "1", "1.5", "\"x\"", "null", "true"] {
        assert_eq!(
            parse(&format!(r#"{{"events":{shape}}}"#)),
            Err(RequestError::EventsNotAnArray),
            "{shape}"
        );
    }
    assert_eq!(
        parse(r#"{"events":[1],"extra":1}"#),
        Err(RequestError::FieldBesideEvents { name: "extra".to_owned() })
    );
    assert_eq!(
        parse(r#"{"events":[1],"events":[2]}"#),
        Err(RequestError::FieldBesideEvents { name: "a second `events`".to_owned() })
    );
    assert_eq!(parse("[1]"), Err(RequestError::NotAnObject { found: "an array" }));
    assert_eq!(parse("7"), Err(RequestError::NotAnObject { found: "a number" }));
    for malformed in [
        "",
        "{",
        "NaN",
        r#"{"value":NaN}"#,
        r#"{"events":[1,}"#,
        r#"{"events":[1]"#,
        r#"{"events":[1]}x"#,
        "{\"a\":\"\u{1}\"}",
    ] {
        assert!(matches!(parse(malformed), Err(RequestError::MalformedJson { .. })), "{malformed}");
    }
}

proptest! {
    /// Whatever is sent: one outcome for each event, accepted ones are those published, by index.
    #[test]
    fn every_event_has_one_outcome(kinds in prop::collection::vec((0u8..6, 0u8..5), 1..40)) {
        let events: Vec<String> = kinds.iter().map(|(kind, id)| match kind {
            0..=2 => with("transaction_id", json!(format!("t-{id}"))),
            3 => event_json(|e| { e.insert("transaction_id".into(), json!(format!("t-{id}"))); e.insert("external_customer_id".into(), json!("other")); }).to_string(),
            4 => with("timestamp", json!("never")),
            _ => "[]".to_owned(),
        }).collect();
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        let request = EventRequest::parse(&body, 100).unwrap();
        let validated = validate(&request, "org", &catalog(), &ValidationRules::default(), at());
        prop_assert_eq!(validated.outcomes.len(), kinds.len());
        let accepted: Vec<_> = validated.outcomes.iter().filter_map(|o| if let Outcome::Accepted { transaction_id } = o { Some(transaction_id.clone()) } else { None }).collect();
        let published: Vec<_> = validated.accepted.iter().map(|e| e.transaction_id.clone()).collect();
        prop_assert_eq!(&accepted, &published);
        let distinct: std::collections::HashSet<_> = published.iter().collect();
        prop_assert_eq!(distinct.len(), published.len());
        for (index, outcome) in validated.outcomes.iter().enumerate() {
            if let Outcome::Rejected(rejection) = outcome {
                prop_assert_eq!(rejection.index, index);
            }
        }
    }

    #[test]
    fn no_body_panics(body in ".{0,200}") {
        if let Ok(request) = EventRequest::parse(&body, 10) {
            validate(&request, "org", &catalog(), &ValidationRules::default(), at());
        }
    }
}
