use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

fn fingerprint(text: &str) -> u64 {
    Properties::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}")).fingerprint()
}

#[track_caller]
fn refuse(text: &str, code: RejectionCode) {
    assert_eq!(Properties::parse(text).map_err(|fault| fault.code), Err(code), "{:.60}", text);
}

#[test]
fn key_order_white_space_and_number_format_do_not_count() {
    let plain = r#"{"a":1,"b":[1,2,{"c":"x"}],"d":null}"#;
    assert_eq!(
        fingerprint(plain),
        fingerprint("{ \"d\" : null,\n \"b\":[ 1.0, 2e0 ,{\"c\":\"\\u0078\"} ], \"a\": 1.00 }")
    );
    assert_eq!(fingerprint("{}"), Properties::EMPTY.fingerprint());
}

#[test]
fn different_content_has_different_fingerprints() {
    let texts = [
        "{}",
        r#"{"a":1}"#,
        r#"{"a":"1"}"#,
        r#"{"a":2}"#,
        r#"{"b":1}"#,
        r#"{"a":null}"#,
        r#"{"a":[]}"#,
        r#"{"a":{}}"#,
        r#"{"a":[1,2]}"#,
        r#"{"a":[2,1]}"#,
        r#"{"a":[[1],2]}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":true}"#,
        r#"{"a":"true"}"#,
        r#"{"a":9007199254740993}"#,
        r#"{"a":9007199254740992}"#,
    ];
    for (i, a) in texts.iter().enumerate() {
        for b in &texts[i + 1..] {
            assert_ne!(fingerprint(a), fingerprint(b), "{a} {b}");
        }
    }
}

#[test]
fn limits_hold_at_the_bound_and_one_past() {
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    fingerprint(&nested(DEPTH_MAX));
    refuse(&nested(DEPTH_MAX + 1), RejectionCode::PropertiesTooDeep);
    let keys = |n: usize| {
        format!("{{{}}}", (0..n).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(","))
    };
    fingerprint(&keys(KEYS_MAX));
    refuse(&keys(KEYS_MAX + 1), RejectionCode::TooManyProperties);
    let key = |n: usize| format!("{{\"{}\":0}}", "k".repeat(n));
    fingerprint(&key(KEY_BYTES_MAX));
    refuse(&key(KEY_BYTES_MAX + 1), RejectionCode::InvalidProperty);
    let sized = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
    fingerprint(&sized(BYTES_MAX));
    refuse(&sized(BYTES_MAX + 1), RejectionCode::PropertiesTooLarge);
}

#[test]
fn hostile_values_are_refused() {
    refuse(
        &format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000)),
        RejectionCode::PropertiesTooDeep,
    );
    refuse(r#"{"a":1e999999}"#, RejectionCode::InvalidProperty);
    refuse(r#"{"a":-1e309}"#, RejectionCode::InvalidProperty);
    refuse(r#"{"a":10e308}"#, RejectionCode::InvalidProperty);
    refuse(r#"{"a":1.7976931348623159e308}"#, RejectionCode::InvalidProperty);
    refuse(r#"{"a":-2e308}"#, RejectionCode::InvalidProperty);
    refuse(&format!("{{\"a\":18{}.5}}", "0".repeat(307)), RejectionCode::InvalidProperty);
    fingerprint(&format!("{{\"a\":17{}.5}}", "0".repeat(307)));
    fingerprint(r#"{"a":1.7976931348623157e308,"b":-1.79769313486231570001e+308,"c":0.9e308}"#);
    refuse(r#"{"a":18446744073709551616}"#, RejectionCode::InvalidProperty);
    refuse(r#"{"a":-9223372036854775809}"#, RejectionCode::InvalidProperty);
    fingerprint(
        r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":"18446744073709551616","d":1e30}"#,
    );
    refuse(r#"{"a":"\ud800"}"#, RejectionCode::InvalidString);
    refuse(r#"{"\udfff":1}"#, RejectionCode::InvalidString);
    refuse(r#"{"a":1,"a":2}"#, RejectionCode::DuplicateProperty);
    refuse(r#"{"a":1,"\u0061":2}"#, RejectionCode::DuplicateProperty);
    refuse("[1]", RejectionCode::InvalidType);
    refuse("null", RejectionCode::InvalidType);
    fingerprint(r#"{"a":1e308,"b":1e-999999,"c":0.5e308}"#);
}

#[test]
fn a_wanted_property_is_found_at_the_top_only() {
    let text = r#"{"nested":{"tokens":1}, "tokens" : "12.5" }"#;
    let (_, found) = Properties::parse_and_get(text, Some("tokens")).unwrap();
    assert_eq!(found, Some("\"12.5\""));
    let (_, found) =
        Properties::parse_and_get(r#"{"nested":{"tokens":1}}"#, Some("tokens")).unwrap();
    assert_eq!(found, None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn every_small_object_is_walked_to_its_end(value in any_json()) {
        let object = Value::Object(Map::from_iter([("x".to_owned(), value.clone())]));
        let (compact, pretty) = (object.to_string(), serde_json::to_string_pretty(&object).unwrap());
        prop_assert_eq!(fingerprint(&compact), fingerprint(&pretty));
        let (_, found) = Properties::parse_and_get(&pretty, Some("x")).unwrap();
        let found: Value = serde_json::from_str(found.expect("x is there")).unwrap();
        prop_assert_eq!(found, value);
    }
}
