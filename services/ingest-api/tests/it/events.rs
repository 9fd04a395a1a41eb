//! Events that are accepted, and everything else that is answered with success.

use crate::api::{Answer, event, event_with, start};
use serde_json::{Value, json};
use std::io::Write as _;

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_durable_when_it_is_answered() {
    let mut api = start().await;
    let answer = api.post(event("t-1").to_string()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = json!({"accepted": 1, "rejected": 0, "duplicates": 0, "events": [{"index": 0, "transaction_id": "t-1", "status": "accepted"}]});
    assert_eq!(answer.body, expected);
    assert_eq!(api.new_in_log(), ["t-1"]);
    // A repeat in another request is the consumer's to drop.
    assert_eq!(api.post(event("t-1").to_string()).await.body, expected);
    assert_eq!(api.new_in_log(), ["t-1"]);
    api.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_what_is_in_the_log() {
    let mut api = start().await;
    let mut sent = event("t-\u{1F600}\"");
    sent["transaction_scope"] = json!("meter-7");
    sent["external_subscription_id"] = json!("sub-1");
    sent["code"] = json!("tokens");
    sent["timestamp"] = json!("2999-01-01T00:00:00Z");
    let mut good = sent.clone();
    good["timestamp"] = event("x")["timestamp"].clone();
    good["properties"] =
        json!({"tokens": "12345678901234567890123456.123456789012", "region": "eu"});
    let answer = api.post(good.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = api.new_events_in_log(|event| {
        (
            event.organization_id.to_string(),
            event.transaction_scope.to_string(),
            event.transaction_id.to_string(),
            event.external_subscription_id.to_string(),
            event.value.map(|value| value.to_string()),
            serde_json::from_str::<Value>(event.properties.as_str()).unwrap(),
        )
    });
    let expected = (
        "org_test".to_owned(),
        "meter-7".to_owned(),
        "t-\u{1F600}\"".to_owned(),
        "sub-1".to_owned(),
        Some("12345678901234567890123456.123456789012".to_owned()),
        good["properties"].clone(),
    );
    assert_eq!(events, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_cost_good_ones_nothing() {
    let mut api = start().await;
    let events = [
        event("a"),
        event_with("b", "code", json!("nothing_billed")),
        event("c"),
        event("a"),
        event_with("a", "external_customer_id", json!("someone-else")),
        json!("no event"),
        event("d"),
    ];
    let answer = api.post_events(&events).await;
    assert_eq!(answer.status, 200);
    answer.assert_counts(3, 3, 1);
    let expected = [
        ("accepted", None),
        ("rejected", Some("unknown_metric_code")),
        ("accepted", None),
        ("duplicate", None),
        ("rejected", Some("conflicting_duplicate")),
        ("rejected", Some("not_an_object")),
        ("accepted", None),
    ];
    assert_eq!(answer.outcomes(), expected);
    let rejected = &answer.body["events"][1];
    assert_eq!(
        (&rejected["transaction_id"], &rejected["pointer"]),
        (&json!("b"), &json!("/events/1/code"))
    );
    assert!(answer.body["events"][5]["transaction_id"].is_null());
    let mut stored = api.new_in_log();
    stored.sort_unstable();
    assert_eq!(stored, ["a", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_accepted_event_nothing_is_stored() {
    let mut api = start().await;
    let answer = api
        .post_events(&[event_with("a", "timestamp", json!("2001-01-01T00:00:00Z")), json!(1)])
        .await;
    answer.assert_problem(422, "no_event_accepted");
    answer.assert_counts(0, 2, 0);
    assert_eq!(
        answer.outcomes(),
        [("rejected", Some("timestamp_too_old")), ("rejected", Some("not_an_object"))]
    );
    assert_eq!(answer.body["events"][0]["pointer"], "/events/0/timestamp");
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read() {
    let mut api = start().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(event("gzipped").to_string().as_bytes()).unwrap();
    let zstd = zstd::stream::encode_all(event("zstandard").to_string().as_bytes(), 3).unwrap();
    for (encoding, body) in [
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd),
        ("identity", event("plain").to_string().into_bytes()),
    ] {
        let request = api.request().header("content-encoding", encoding).body(body);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{encoding}: {answer:?}");
    }
    let mut stored = api.new_in_log();
    stored.sort_unstable();
    assert_eq!(stored, ["gzipped", "plain", "zstandard"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request_and_is_closed_to_browsers() {
    let api = start().await;
    for path in ["/v1/limits", "/nothing", "/health", "/v1/events"] {
        let response =
            api.client.get(api.url(path)).header("x-request-id", "mine-1").send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("x-request-id"), Some("mine-1"), "{path}");
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(
            header("content-security-policy"),
            Some("default-src 'none'; frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = start().await;
    Answer::of(api.get("/v2/events").await).await.assert_problem(404, "not_found");
    Answer::of(api.get("/problems/unheard_of").await).await.assert_problem(404, "not_found");
    let answer = Answer::of(api.get("/v1/events").await).await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = Answer::of(api.client.delete(api.url("/v1/limits")).send().await.unwrap()).await;
    answer.assert_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_problems_can_be_read() {
    let api = start().await;
    let limits = Answer::of(api.get("/v1/limits").await).await;
    assert_eq!(limits.status, 200);
    for (name, value) in [
        ("events_per_request", 10_000),
        ("body_bytes", 16_777_216),
        ("compressed_body_bytes", 5_242_880),
        ("timestamp_age_seconds", 3_024_000),
    ] {
        assert_eq!(limits.body[name], value, "{name}");
    }
    let problem = Answer::of(api.get("/problems/publish_unconfirmed").await).await;
    assert_eq!(
        (problem.status, &problem.body["status"], &problem.body["retryable"]),
        (200, &json!(503), &json!(true))
    );
    assert!(problem.body["advice"].as_str().unwrap().contains("same transaction_ids is safe"));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_health_and_counts() {
    let api = start().await;
    assert_eq!(api.get("/health").await.status(), 200);
    assert_eq!(api.get("/ready").await.status(), 200);
    assert_eq!(api.post(event("counted").to_string()).await.status, 200);
    let metrics = api.get("/metrics").await.text().await.unwrap();
    for name in [
        "tallymark_ingest_events_total{outcome=\"accepted\"}",
        "tallymark_ingest_events_total{outcome=\"duplicate\"}",
        "tallymark_ingest_rejections_total{code=\"timestamp_too_old\"}",
        "tallymark_ingest_problems_total{code=\"rate_limited\"}",
        "tallymark_ingest_request_seconds_count",
        "tallymark_ingest_publish_seconds_count",
        "tallymark_ingest_body_bytes_total",
        "tallymark_ingest_in_flight_bytes",
        "tallymark_ingest_panics_total",
    ] {
        assert!(metrics.contains(name), "{name} is missing in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_loads_nothing_from_elsewhere() {
    let api = start().await;
    assert_eq!(api.get("/").await.headers()["location"], "/docs/");
    let page = api.get("/docs/").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let page = page.text().await.unwrap();
    let sources: Vec<&str> = page
        .split(['"', '\''])
        .filter(|part| [".js", ".css", ".png"].iter().any(|end| part.ends_with(end)))
        .collect();
    assert!(sources.len() >= 4, "{page}");
    for source in sources {
        assert!(!source.contains("//"), "{source} is from elsewhere");
        let response = api.get(&format!("/docs/{}", source.trim_start_matches("./"))).await;
        assert_eq!(response.status(), 200, "{source}");
    }
    assert!(!page.contains("<script>"), "the policy refuses scripts within the page");
    let initializer = api.get("/docs/swagger-initializer.js").await.text().await.unwrap();
    assert!(
        initializer.contains("/openapi.json") && initializer.contains("\"validatorUrl\": \"none\""),
        "{initializer}"
    );
}
