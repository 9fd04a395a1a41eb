//! What must hold of the source tree.

use std::collections::BTreeSet;
use std::process::Command;
use testkit::repo;

/// Which of our crates each crate may use. The picture of ARCHITECTURE.md, as a table.
const EDGES: [(&str, &[&str]); 15] = [
    ("metering", &[]),
    ("fault-injection", &[]),
    ("service-kit", &["fault-injection"]),
    ("local-engines", &[]),
    ("testkit", &["local-engines"]),
    ("event-log", &["fault-injection", "metering", "service-kit"]),
    ("usage-store", &["fault-injection", "metering", "service-kit"]),
    ("config-store", &["fault-injection", "metering", "service-kit"]),
    ("embedded-clickhouse", &["service-kit"]),
    ("ingest-api", &["config-store", "event-log", "fault-injection", "metering", "service-kit"]),
    ("event-consumer", &["event-log", "fault-injection", "metering", "service-kit", "usage-store"]),
    (
        "operator",
        &["event-consumer", "event-log", "local-engines", "metering", "service-kit", "usage-store"],
    ),
    (
        "standalone",
        &[
            "config-store",
            "event-consumer",
            "event-log",
            "ingest-api",
            "local-engines",
            "metering",
            "service-kit",
            "usage-store",
        ],
    ),
    ("chaos", &["event-log", "fault-injection", "local-engines", "testkit"]),
    ("loadtest", &["service-kit"]),
];

/// The vendor clients that only one crate may name.
const OWNERS: [(&str, &str); 5] = [
    ("rdkafka", "event-log"),
    ("rusqlite", "event-log"),
    ("clickhouse", "usage-store"),
    ("sqlx", "config-store"),
    ("libloading", "embedded-clickhouse"),
];

/// What runs one step after the other must notice that one has failed.
#[test]
fn a_step_of_ci_ends_as_its_command_did() {
    let step = "source .ci/step; step false || exit 7; exit 8";
    let ended = Command::new("bash").args(["-c", step]).current_dir(repo::root()).output().unwrap();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
}

#[test]
fn crates_depend_on_each_other_only_as_drawn() {
    let found = repo::dependencies();
    let known: BTreeSet<_> = EDGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        found.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "every crate has a row in the table"
    );
    for (name, allowed) in EDGES {
        for dependency in found[name].iter().filter(|d| known.contains(*d)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn each_vendor_client_is_named_by_one_crate() {
    for (client, owner) in OWNERS {
        let users: Vec<_> = repo::dependencies()
            .into_iter()
            .filter(|(_, deps)| deps.iter().any(|d| d == client))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(users, [owner], "{client}");
    }
}

#[test]
fn the_domain_is_free_of_floats_io_and_async() {
    for file in rust_files().filter(|f| f.starts_with("crates/metering/src/")) {
        for word in ["f32", "f64", "async ", "std::fs", "std::net", "tokio"] {
            assert!(!read(&file).contains(word), "{file} has `{word}`");
        }
    }
}

/// Stored usage is only ever added to, so no statement of ours may change or remove a row.
#[test]
fn no_clickhouse_statement_changes_or_removes_rows() {
    let is_statement = |file: &String| {
        let place = ["crates/usage-store/queries/", "clickhouse-schema/"];
        file.ends_with(".sql") && place.iter().any(|place| file.starts_with(place))
    };
    let files: Vec<_> = repo::files().into_iter().filter(is_statement).collect();
    assert!(files.len() > 10, "the statements are where this test looks: {files:?}");
    for file in files {
        let text = read(&file).to_uppercase();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("--"));
        for word in code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')) {
            assert!(!["UPDATE", "DELETE", "TRUNCATE"].contains(&word), "{file} has `{word}`");
        }
    }
}

#[test]
fn source_files_are_short_and_say_what_they_are_for() {
    for file in rust_files() {
        let text = read(&file);
        let lines = text.lines().count();
        assert!(lines <= 500, "{file} has {lines} lines; split it");
        assert!(!file.ends_with("/mod.rs"), "{file}: use name.rs beside name/");
        let is_tests = file.ends_with("/tests.rs") || file.contains("/tests/");
        assert!(
            is_tests || text.starts_with("//!"),
            "{file} does not begin with `//!` and its one job"
        );
    }
}

#[test]
fn nothing_is_left_open_or_ignored() {
    // Spelled in two parts so that this file does not find itself.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"], ["todo", "!("], ["unimple", "mented!("]]
            .map(|word| word.concat());
    for file in rust_files() {
        let text = read(&file);
        for word in &words {
            assert!(!text.contains(word), "{file} has `{word}`");
        }
    }
}

fn rust_files() -> impl Iterator<Item = String> {
    repo::files().into_iter().filter(|file| file.ends_with(".rs"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(repo::root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}
