//! The commands for operators, as a person calls them.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const PEPPER: &str = "a pepper for tests only";

fn call(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-api"));
    command.args(arguments).env_clear();
    command
        .env("DATABASE_URL", format!("sqlite://{}", directory.join("config.db").display()))
        .env("TALLYMARK_API_KEY_PEPPER", PEPPER);
    command.output().unwrap()
}

#[track_caller]
fn text(directory: &Path, arguments: &[&str]) -> String {
    let output = call(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(directory: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(directory, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn an_organization_a_metric_and_a_key_are_made_and_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    assert_eq!(json(directory, &["migrate"])["migrated"], true);
    assert_eq!(text(directory, &["migrate"]), "the configuration database is up to date\n");
    assert_eq!(
        json(directory, &["create-organization", "--name", "Acme", "--id", "org_acme"])["organization"],
        "org_acme"
    );
    let metric = [
        "create-metric",
        "--organization",
        "org_acme",
        "--code",
        "tokens",
        "--aggregation",
        "sum",
        "--field",
        "tokens",
    ];
    assert_eq!(json(directory, &metric)["aggregation"], "sum");

    assert_eq!(json(directory, &["list-organizations"])[0]["organization"], "org_acme");
    assert_eq!(
        json(directory, &["list-metrics", "--organization", "org_acme"])[0]["code"],
        "tokens"
    );

    let key = json(
        directory,
        &[
            "create-api-key",
            "--organization",
            "org_acme",
            "--scopes",
            "ingest,read",
            "--expires-in",
            "30d",
        ],
    );
    assert!(key["api_key"].as_str().unwrap().starts_with("tmk_"), "{key}");
    assert_eq!(key["scopes"], "ingest read");
    assert!(key["expires_at"].is_string());
    let key_id = key["key_id"].as_str().unwrap();

    let listed = text(directory, &["list-api-keys", "--organization", "org_acme"]);
    assert!(
        listed.contains(key_id) && !listed.contains(key["api_key"].as_str().unwrap()),
        "{listed}"
    );
    assert!(
        json(directory, &["list-api-keys", "--organization", "org_acme"])[0]["revoked_at"]
            .is_null()
    );
    text(directory, &["revoke-api-key", "--organization", "org_acme", "--key-id", key_id]);
    assert!(
        json(directory, &["list-api-keys", "--organization", "org_acme"])[0]["revoked_at"]
            .is_string()
    );

    let shown = text(directory, &["create-api-key", "--organization", "org_acme"]);
    assert!(shown.starts_with("tmk_") && shown.contains("shown this once"), "{shown}");
}

#[test]
fn mistakes_are_named_and_fail() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    text(directory, &["migrate"]);
    text(directory, &["create-organization", "--name", "Acme", "--id", "org_acme"]);
    for (arguments, message) in [
        (&["create-organization", "--name", "Acme", "--id", "org_acme"][..], "org_acme"),
        (&["create-api-key", "--organization", "nobody"], "nobody"),
        (&["revoke-api-key", "--organization", "org_acme", "--key-id", "nothing"], "nothing"),
        (
            &[
                "create-metric",
                "--organization",
                "org_acme",
                "--code",
                "x",
                "--aggregation",
                "average",
            ],
            "percentile",
        ),
        (
            &[
                "create-metric",
                "--organization",
                "org_acme",
                "--code",
                "x",
                "--aggregation",
                "unique_count",
            ],
            "unique_count",
        ),
        (
            &["create-api-key", "--organization", "org_acme", "--scopes", "everything"],
            "ingest, read or admin",
        ),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = call(directory, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(message), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
