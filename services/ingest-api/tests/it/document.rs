//! The OpenAPI document: a snapshot, and everything that the service can answer is in it.
//!
//! `UPDATE_EXPECT=1 cargo test -p ingest-api` writes the snapshot anew.

use crate::api::{Answer, start};
use expect_test::expect_file;
use ingest_api::openapi;
use ingest_api::problem::ProblemCode;
use metering::RejectionCode;
use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(openapi::document()).unwrap()
}

#[test]
fn the_document_is_the_published_one() {
    let text = openapi::document().to_pretty_json().unwrap() + "\n";
    expect_file!["../../../../openapi/ingest-api.v1.json"].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_serves_its_document() {
    let api = start().await;
    let served = Answer::of(api.get("/openapi.json").await).await;
    assert_eq!(served.status, 200);
    assert_eq!(served.body, document());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_described_where_it_occurs() {
    let api = start().await;
    let document = document();
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap();
    for code in ProblemCode::ALL {
        assert!(codes.iter().any(|known| known == code.as_str()), "{}", code.as_str());
        let problem = Answer::of(api.get(&format!("/problems/{}", code.as_str())).await).await;
        assert_eq!(problem.status, 200);
        let operation = if code == ProblemCode::NotFound {
            "/paths/~1problems~1{code}/get"
        } else {
            "/paths/~1v1~1events/post"
        };
        let response =
            &document.pointer(operation).unwrap()["responses"][problem.body["status"].to_string()];
        let description = response["description"].as_str().unwrap_or_default();
        assert!(description.contains(&format!("`{}`", code.as_str())), "{}", code.as_str());
        assert_eq!(
            problem.body["retryable"] == true,
            response["headers"]["Retry-After"].is_object(),
            "{}",
            code.as_str()
        );
        assert!(response["content"]["application/problem+json"]["schema"]["$ref"].is_string());
    }
}

#[test]
fn every_rejection_is_described() {
    let document = document();
    let codes = document["components"]["schemas"]["EventOutcome"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap();
    assert_eq!(codes.len(), RejectionCode::ALL.len());
    for code in RejectionCode::ALL {
        assert!(codes.iter().any(|known| known == code.as_str()), "{}", code.as_str());
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let text = document.to_string();
    let references: Vec<&str> =
        text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(references.len() > 10);
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[test]
fn only_what_is_always_there_is_required() {
    let document = document();
    let required = |schema: &str| document["components"]["schemas"][schema]["required"].clone();
    assert_eq!(
        required("Event"),
        serde_json::json!(["transaction_id", "external_customer_id", "code", "timestamp"])
    );
    assert_eq!(required("EventOutcome"), serde_json::json!(["index", "status"]));
    assert_eq!(
        required("Problem"),
        serde_json::json!(["type", "title", "status", "detail", "code", "request_id"])
    );
}
