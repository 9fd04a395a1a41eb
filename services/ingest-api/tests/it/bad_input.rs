//! Bad input: each kind is refused by its code, and costs the good events around it nothing.

use crate::api::{event, event_with, start, start_with, timestamp};
use chrono::TimeDelta;
use ingest_api::config::UnknownMetricCodes;
use serde_json::json;

/// An event as text, in which the text of one field is replaced.
fn with_text(field: &str, text: &str) -> String {
    event_with("bad", field, json!("REPLACE")).to_string().replace("\"REPLACE\"", text)
}

fn metric(code: &str, rest: &str) -> String {
    let event = event_with("bad", "code", json!(code)).to_string();
    format!("{},{rest}}}", event.strip_suffix('}').unwrap())
}

#[expect(clippy::too_many_lines, reason = "a table of bad input, one line for each kind")]
fn bad_events() -> Vec<(String, &'static str, &'static str)> {
    let without = |field: &str| {
        let mut event = event("bad");
        event.as_object_mut().unwrap().remove(field);
        event.to_string()
    };
    let ago = |delta: TimeDelta| json!(timestamp(delta)).to_string();
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let keys = |count: usize| {
        json!((0..count).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>())
            .to_string()
    };
    vec![
        ("1".to_owned(), "not_an_object", ""),
        ("null".to_owned(), "not_an_object", ""),
        ("[[]]".to_owned(), "not_an_object", ""),
        (format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)), "not_an_object", ""),
        (without("transaction_id"), "missing_field", "/transaction_id"),
        (without("external_customer_id"), "missing_field", "/external_customer_id"),
        (without("code"), "missing_field", "/code"),
        (without("timestamp"), "missing_field", "/timestamp"),
        (with_text("transaction_id", "null"), "missing_field", "/transaction_id"),
        (with_text("transaction_id", "\"\""), "blank_field", "/transaction_id"),
        (
            with_text("external_customer_id", "\" \\t \""),
            "invalid_characters",
            "/external_customer_id",
        ),
        (with_text("external_customer_id", "\"   \""), "blank_field", "/external_customer_id"),
        (with_text("transaction_id", "\"\\u0000\""), "invalid_characters", "/transaction_id"),
        (with_text("transaction_id", "\"\\u001b[31m\""), "invalid_characters", "/transaction_id"),
        (with_text("transaction_id", "\"\\ud800\""), "invalid_string", "/transaction_id"),
        (with_text("code", "\"\\udc00x\""), "invalid_string", "/code"),
        (with_text("properties", "{\"a\":\"\\ud83d\"}"), "invalid_string", "/properties"),
        (with_text("properties", "{\"\\ud83d\":1}"), "invalid_string", "/properties"),
        (
            with_text("transaction_id", &format!("\"{}\"", "é".repeat(128))),
            "field_too_long",
            "/transaction_id",
        ),
        (with_text("code", &format!("\"{}\"", "c".repeat(129))), "field_too_long", "/code"),
        (with_text("transaction_id", "17"), "invalid_type", "/transaction_id"),
        (with_text("timestamp", "1700000000"), "invalid_type", "/timestamp"),
        (with_text("properties", "[]"), "invalid_type", "/properties"),
        (with_text("timestamp", "\"yesterday\""), "invalid_timestamp", "/timestamp"),
        (with_text("timestamp", "\"2026-01-31T12:00:00\""), "invalid_timestamp", "/timestamp"),
        (with_text("timestamp", "\"2026-02-30T12:00:00Z\""), "invalid_timestamp", "/timestamp"),
        (with_text("timestamp", "\"0001-01-01T00:00:00Z\""), "timestamp_too_old", "/timestamp"),
        (
            with_text("timestamp", &ago(TimeDelta::days(35) + TimeDelta::minutes(1))),
            "timestamp_too_old",
            "/timestamp",
        ),
        (with_text("timestamp", &ago(-TimeDelta::minutes(6))), "timestamp_in_future", "/timestamp"),
        (with_text("timestamp", "\"9999-12-31T23:59:59Z\""), "timestamp_in_future", "/timestamp"),
        (with_text("code", "\"nothing_billed\""), "unknown_metric_code", "/code"),
        (with_text("colour", "1"), "unknown_field", "/colour"),
        (metric("api_calls", "\"code\":\"api_calls\""), "duplicate_field", "/code"),
        (metric("storage", "\"properties\":{}"), "missing_value", "/value"),
        (metric("tokens", "\"properties\":{}"), "missing_value", "/properties/tokens"),
        (
            metric("tokens", "\"properties\":{\"tokens\":null}"),
            "missing_value",
            "/properties/tokens",
        ),
        (metric("storage", "\"value\":1e999999"), "invalid_value", "/value"),
        (metric("storage", "\"value\":\"1e999999\""), "invalid_value", "/value"),
        (metric("storage", "\"value\":1e400"), "value_out_of_range", "/value"),
        (metric("storage", "\"value\":\"NaN\""), "invalid_value", "/value"),
        (metric("storage", "\"value\":\"Infinity\""), "invalid_value", "/value"),
        (metric("storage", "\"value\":\"0x10\""), "invalid_value", "/value"),
        (metric("storage", "\"value\":\"\""), "invalid_value", "/value"),
        (metric("storage", "\"value\":true"), "invalid_value", "/value"),
        (metric("storage", "\"value\":[1]"), "invalid_value", "/value"),
        (
            metric("storage", "\"value\":123456789012345678901234567"),
            "value_out_of_range",
            "/value",
        ),
        (metric("storage", "\"value\":0.0000000000001"), "value_out_of_range", "/value"),
        (metric("tokens", "\"value\":1,\"properties\":{\"tokens\":1}"), "invalid_value", "/value"),
        (
            metric("tokens", "\"properties\":{\"tokens\":1e999999}"),
            "invalid_property",
            "/properties",
        ),
        (metric("api_calls", "\"properties\":{\"x\":1e999999}"), "invalid_property", "/properties"),
        (with_text("properties", &nested(500_000)), "properties_too_large", "/properties"),
        (with_text("properties", &nested(16)), "properties_too_deep", "/properties"),
        (with_text("properties", &keys(257)), "too_many_properties", "/properties"),
        (
            with_text("properties", &format!("{{\"{}\":1}}", "k".repeat(257))),
            "invalid_property",
            "/properties",
        ),
        (with_text("properties", "{\"a\":1,\"\\u0061\":2}"), "duplicate_property", "/properties"),
        (
            with_text("properties", &format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024))),
            "properties_too_large",
            "/properties",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_event_is_refused_by_its_code_alone() {
    let mut api = start().await;
    for (text, code, pointer) in bad_events() {
        let shown: String = text.chars().take(120).collect();
        let (before, after) = (event("before"), event("after"));
        let answer = api.post(format!("{{\"events\":[{before},{text},{after}]}}")).await;
        assert_eq!(answer.status, 200, "{shown}: {answer:?}");
        assert_eq!(
            answer.outcomes(),
            [("accepted", None), ("rejected", Some(code)), ("accepted", None)],
            "{shown}: {}",
            answer.body["events"][1]
        );
        assert_eq!(answer.body["events"][1]["pointer"], format!("/events/1{pointer}"), "{shown}");
        assert!(answer.body["events"][1]["detail"].as_str().unwrap().len() > 20, "{shown}");
        let mut stored = api.new_in_log();
        stored.sort_unstable();
        assert_eq!(stored, ["after", "before"], "{shown}");
        // Alone, without the envelope, the pointer is that of the event.
        let alone = api.post(text).await;
        if alone.body["code"] == "no_event_accepted" {
            assert_eq!(alone.body["events"][0]["pointer"], pointer, "{shown}");
        } else {
            alone.assert_problem(400, "invalid_request");
        }
    }
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_request_are_refused_whole() {
    let mut api = start().await;
    let good = event("good").to_string();
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    for (body, code) in [
        (String::new(), "malformed_json"),
        ("{".to_owned(), "malformed_json"),
        (format!("{{\"events\":[{good}"), "malformed_json"),
        (format!("{{\"events\":[{good},]}}"), "malformed_json"),
        (format!("{good}{good}"), "malformed_json"),
        (format!("{{\"events\":[{good},{{\"value\":NaN}}]}}"), "malformed_json"),
        (format!("{{\"events\":[{good},{{\"value\":01}}]}}"), "malformed_json"),
        (format!("{{\"events\":[{good}],\"a\":\"\u{1}\"}}"), "malformed_json"),
        ("[".repeat(500_000), "malformed_json"),
        ("{\"a\":".repeat(200_000), "malformed_json"),
        (deep, "invalid_request"),
        (format!("[{good}]"), "invalid_request"),
        ("\"events\"".to_owned(), "invalid_request"),
        ("{\"events\":[]}".to_owned(), "invalid_request"),
        (format!("{{\"events\":{good}}}"), "invalid_request"),
        ("{\"events\":null}".to_owned(), "invalid_request"),
        (format!("{{\"events\":[{good}],\"organization_id\":\"other\"}}"), "invalid_request"),
        (format!("{{\"events\":[{good}],\"events\":[{good}]}}"), "invalid_request"),
    ] {
        let shown: String = body.chars().take(60).collect();
        let answer = api.post(body).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (400, Some(code)),
            "{shown}: {answer:?}"
        );
        answer.assert_problem(400, code);
    }
    let answer = api.post([good.as_bytes(), b"\xff"].concat()).await;
    answer.assert_problem(400, "invalid_utf8");
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_within_a_request_are_told_apart() {
    let mut api = start().await;
    let mut reordered = event("a");
    reordered["properties"] = json!({"x": 1.0, "y": [1, 2]});
    let same =
        reordered.to_string().replace("{\"x\":1.0,\"y\":[1,2]}", "{ \"y\" : [1,2], \"x\" : 1 }");
    let other_time = event_with("a", "timestamp", json!(timestamp(TimeDelta::minutes(9))));
    let other_scope = event_with("a", "transaction_scope", json!("meter-7"));
    let answer =
        api.post(format!("{{\"events\":[{reordered},{same},{other_time},{other_scope}]}}")).await;
    let expected = [
        ("accepted", None),
        ("duplicate", None),
        ("rejected", Some("conflicting_duplicate")),
        ("accepted", None),
    ];
    assert_eq!(answer.outcomes(), expected, "{answer:?}");
    assert_eq!(api.new_in_log(), ["a", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_metric_codes_pass_when_configured() {
    let mut api =
        start_with(|config| config.unknown_metric_codes = UnknownMetricCodes::Accept, None).await;
    let answer = api.post(with_text("code", "\"brand_new\"")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(api.new_in_log(), ["bad"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_is_created_is_accepted_soon() {
    let api = start().await;
    let body = with_text("code", "\"brand_new\"");
    assert_eq!(api.post(body.clone()).await.status, 422);
    let metric = metering::BillableMetric {
        code: "brand_new".to_owned(),
        aggregation: metering::Aggregation::Count,
        field: None,
    };
    api.store
        .create_billable_metric(crate::api::ORGANIZATION, &metric, crate::api::now())
        .await
        .unwrap();
    crate::api::until("the metric is known", async || api.post(body.clone()).await.status == 200)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_bounds_of_time_hold() {
    let configure = |config: &mut ingest_api::ServeConfig| {
        config.max_timestamp_age = std::time::Duration::from_secs(3600);
        config.max_timestamp_ahead = std::time::Duration::from_secs(60);
    };
    let api = start_with(configure, None).await;
    let post = async |ago: TimeDelta| {
        api.post(with_text("timestamp", &json!(timestamp(ago)).to_string())).await
    };
    assert_eq!(post(TimeDelta::minutes(58)).await.status, 200);
    assert_eq!(
        post(TimeDelta::minutes(61)).await.outcomes(),
        [("rejected", Some("timestamp_too_old"))]
    );
    assert_eq!(post(TimeDelta::seconds(-30)).await.status, 200);
    assert_eq!(
        post(TimeDelta::seconds(-120)).await.outcomes(),
        [("rejected", Some("timestamp_in_future"))]
    );
}
