//! Whole runs against a small stand-in of the pipeline that can be told to be wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod pipeline;

use clap::Parser;
use loadtest::args::{Args, CheckArgs};
use loadtest::report::Report;
use loadtest::verdict::Problem;
use pipeline::{Faults, Pipeline};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// 100 requests of 20 events within a second.
fn run_with(faults: Faults, more: &[&str]) -> anyhow::Result<Report> {
    let directory = tempfile::tempdir().unwrap();
    run_on(&Pipeline::start(faults), directory.path(), more)
}

fn run_on(pipeline: &Pipeline, directory: &Path, more: &[&str]) -> anyhow::Result<Report> {
    let (url, directory) = (pipeline.url(), directory.to_str().unwrap().to_owned());
    let clickhouse = url.replace("http://", "http://tallymark_reader:reader@");
    let fixed = [
        "loadtest",
        "--url",
        &url,
        "--api-key",
        "key",
        "--clickhouse-url",
        &clickhouse,
        "--ledger-dir",
        &directory,
    ];
    let load =
        ["--rate", "2000", "--events-per-request", "20", "--duration", "1s", "--customers", "20"];
    let bounds = ["--catch-up-within", "1500ms", "--duplicates", "5%", "--changed", "5%"];
    let codes = ["--codes", "api_calls=count,tokens=sum:tokens,credits=sum"];
    let args =
        Args::try_parse_from(fixed.iter().chain(&load).chain(&bounds).chain(&codes).chain(more))?;
    block_on(loadtest::run::run(&args))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn problems(faults: Faults) -> Vec<Problem> {
    run_with(faults, &[]).unwrap().verdict.findings.into_keys().collect()
}

#[test]
fn a_pipeline_that_keeps_the_contract_passes() {
    let report = run_with(Faults::default(), &[]).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert_eq!(
        report.counts.sent,
        1 + 2_000 + 1_000,
        "the first event, the load, and the last request"
    );
    assert_eq!(report.counts.acked, report.counts.sent);
    assert!(report.counts.acked_duplicates > 80 && report.counts.acked_changed > 80, "{report:#?}");
    assert_eq!(report.verdict.store.rows, report.counts.acked_fresh);
    assert_eq!(report.ack_latency_us.samples, 100);
    assert!(report.queryable_lag_ms.samples > 0);
    assert_eq!(report.processes.last().unwrap().name, "generator");
}

#[test]
fn outcomes_that_are_unknown_are_retried_with_the_same_ids_until_they_are_known() {
    let faults = Faults { answers_503_every: 7, breaks_connection_every: 9, ..Faults::default() };
    let report = run_with(faults, &[]).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert!(report.unknown_attempts >= 20, "{report:#?}");
    assert!(report.longest_without_ack_ms > 0);
    assert_eq!((report.counts.unresolved, report.counts.acked), (0, report.counts.sent));
    assert_eq!(report.ack_latency_us.samples, 100, "retried requests have a latency too");
}

#[test]
fn each_way_to_be_wrong_fails() {
    let lost = problems(Faults { loses_row: Some(700), ..Faults::default() });
    assert_eq!(lost, [Problem::Missing, Problem::WrongTotal, Problem::WrongSetHash]);
    let doubled = problems(Faults { doubles_row: Some(700), ..Faults::default() });
    assert_eq!(doubled, [Problem::Doubled, Problem::WrongTotal, Problem::WrongSetHash]);
    let last_wins = problems(Faults { last_copy_wins: true, ..Faults::default() });
    assert!(last_wins.contains(&Problem::WrongPayload), "{last_wins:?}");
    let swapped = problems(Faults { swaps_properties: true, ..Faults::default() });
    assert_eq!(swapped, [Problem::WrongPayload, Problem::WrongSetHash]);
    let unsubscribed = problems(Faults { loses_subscription: true, ..Faults::default() });
    let all = [Problem::WrongPayload, Problem::WrongTotal, Problem::WrongSetHash];
    assert_eq!(unsubscribed, all);
    let floats = problems(Faults { sums_as_floats: true, ..Faults::default() });
    assert_eq!(floats, [Problem::WrongTotal]);
    let no_conflicts = problems(Faults { forgets_conflicts: true, ..Faults::default() });
    assert_eq!(no_conflicts, [Problem::MissingConflict]);
}

#[test]
fn refused_events_are_counted_and_must_not_be_stored() {
    let refuses = Faults { refuses_every: 50, ..Faults::default() };
    let report = run_with(refuses.clone(), &["--allow-refusals"]).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert!(report.counts.rejected > 10);
    assert_eq!(report.rejection_codes.get("timestamp_too_old"), Some(&report.counts.rejected));
    assert_eq!(problems(refuses), [Problem::Refused]);
    let stored = problems(Faults { refuses_every: 50, stores_refused: true, ..Faults::default() });
    let all =
        [Problem::RejectedStored, Problem::WrongTotal, Problem::WrongSetHash, Problem::Refused];
    assert_eq!(stored, all);
}

const HARD: [&str; 6] =
    ["--sync-ledger", "--edge-cases", "20%", "--keys", "org_demo=key,org_b=key-b", "--exclusive"];

#[test]
fn several_organizations_with_edge_cases_are_judged_one_by_one() {
    let report = run_with(Faults::default(), &HARD).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert_eq!(report.counts.sent, 2 + 2_000 + 1_000);
    assert!(report.counts.invalid > 80 && report.counts.rejected == 0, "{report:#?}");
    assert_eq!(report.verdict.store.set_hashes.len(), 2);
    let audit = report.verdict.store.audit;
    assert_eq!(audit.records, report.counts.acked);
    assert!(audit.duplicates.contains(report.counts.acked_duplicates));
}

#[test]
fn edge_cases_find_what_plain_traffic_does_not() {
    let hard = |faults| -> Vec<Problem> {
        run_with(faults, &HARD).unwrap().verdict.findings.into_keys().collect()
    };
    let confused = hard(Faults { confuses_identities: true, ..Faults::default() });
    assert!(confused.contains(&Problem::Missing), "{confused:?}");
    let mixed = hard(Faults { mixes_organizations: true, ..Faults::default() });
    assert!(mixed.contains(&Problem::Missing), "{mixed:?}");
    let invalid = hard(Faults { accepts_any_age: true, ..Faults::default() });
    assert!(invalid.contains(&Problem::WrongAnswer), "{invalid:?}");
    assert!(invalid.contains(&Problem::RejectedStored), "{invalid:?}");
}

#[test]
fn the_audit_is_compared_when_nobody_else_writes() {
    let late = Faults { audit_begins_late: true, ..Faults::default() };
    assert_eq!(problems(late.clone()), []);
    let judged = |faults, more: &[&str]| -> Vec<Problem> {
        let more: Vec<&str> = ["--exclusive"].iter().chain(more).copied().collect();
        run_with(faults, &more).unwrap().verdict.findings.into_keys().collect()
    };
    assert_eq!(judged(late, &[]), [Problem::AuditGap]);
    let parked = Faults { dead_letters: 3, ..Faults::default() };
    assert_eq!(judged(parked.clone(), &[]), [Problem::Unbalanced, Problem::DeadLetters]);
    assert_eq!(judged(parked, &["--expect-dead-letters", "2..3"]), []);
}

#[test]
fn a_store_that_is_away_for_a_while_is_asked_again() {
    let report = run_with(Faults { failing_queries: 12, ..Faults::default() }, &[]).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert!(report.failed_lag_queries > 0);
    let away = Faults { failing_queries: u64::MAX, ..Faults::default() };
    let error = run_with(away, &[]).unwrap_err();
    assert_eq!(error.to_string(), "reading the store for the verdict");
}

#[test]
fn a_consumer_that_stands_still_is_told_from_one_that_loses() {
    let stopped = Faults { stops_consuming_after: Some(60), ..Faults::default() };
    let report = run_with(stopped, &[]).unwrap();
    let found: Vec<Problem> = report.verdict.findings.keys().copied().collect();
    assert_eq!((found, report.caught_up_ms), (vec![Problem::NotCaughtUp], None));
}

/// Runs the program against `pipeline`; `load` may end it early. Returns its exit code and its report.
fn program(pipeline: &Pipeline, more: &[&str], load: impl FnOnce(u32)) -> (Option<i32>, Value) {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["--url", &pipeline.url(), "--api-key", "key", "--clickhouse-url"])
        .arg(pipeline.url().replace("http://", "http://tallymark_reader:reader@"))
        .args(["--rate", "1000", "--events-per-request", "20", "--catch-up-within", "1500ms"])
        .args(more)
        .arg("--ledger-dir")
        .arg(directory.path())
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    load(child.id());
    let code = child.wait().unwrap().code();
    (code, serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap())
}

#[test]
fn the_exit_code_says_how_a_run_ended() {
    let judged = |faults| {
        let (code, report) = program(&Pipeline::start(faults), &["--duration", "200ms"], |_| ());
        (code, report["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(judged(Faults::default()), (Some(0), "passed".to_owned()));
    let lossy = Faults { loses_row: Some(100), ..Faults::default() };
    assert_eq!(judged(lossy), (Some(1), "failed".to_owned()));
    let away = Faults { failing_queries: u64::MAX, ..Faults::default() };
    assert_eq!(judged(away), (Some(2), "not_judged".to_owned()));
}

#[test]
fn sigterm_ends_the_load_and_everything_sent_is_judged() {
    let pipeline = Pipeline::start(Faults::default());
    let end_early = |pid: u32| {
        pipeline.wait_for_requests(20);
        let killed = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    };
    let (code, report) = program(&pipeline, &["--duration", "10m"], end_early);
    assert_eq!((code, &report["outcome"]), (Some(0), &"passed".into()), "{report:#}");
    assert!(report["counts"]["sent"].as_u64().unwrap() < 100_000, "{report:#}");
    assert_eq!(report["never_started_requests"], 0);
}

#[test]
fn a_run_can_be_judged_again_by_its_ledger() {
    let pipeline = Pipeline::start(Faults::default());
    let directory = tempfile::tempdir().unwrap();
    let ledger = run_on(&pipeline, directory.path(), &[]).unwrap().ledger;
    let clickhouse = pipeline.url().replace("http://", "http://tallymark_reader:reader@");
    let args = ["check", "--ledger", &ledger, "--clickhouse-url", &clickhouse, "--exclusive"];
    let report = block_on(loadtest::run::check(&CheckArgs::parse_from(args))).unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    assert_eq!(report.counts.sent, 3_001);
}

#[test]
fn a_stall_shows_in_the_latency_of_every_request_that_was_due_meanwhile() {
    let stall = Duration::from_millis(400);
    let report =
        run_with(Faults { stalls_once: Some(stall), ..Faults::default() }, &["--connections", "1"])
            .unwrap();
    assert_eq!(report.passed(), Some(true), "{report:#?}");
    // One in a hundred was stalled, but forty were due while it was: a closed loop would show one.
    assert!(report.ack_latency_us.p90 > 200_000, "{report:#?}");
    assert!(report.late_requests > 20 && report.latest_start_ms >= 300, "{report:#?}");
    assert_eq!(report.never_started_requests, 0);
}

#[test]
fn requests_that_could_not_be_sent_are_reported() {
    let faults = Faults { stalls_once: Some(Duration::from_millis(1_500)), ..Faults::default() };
    let report = run_with(faults, &["--connections", "1", "--overtime", "100ms"]).unwrap();
    assert!(report.never_started_requests > 0, "{report:#?}");
    assert!(report.counts.sent < 3_001);
}

#[test]
fn a_key_that_is_refused_ends_the_run_at_once() {
    let error = run_with(Faults { refuses_key: true, ..Faults::default() }, &[]).unwrap_err();
    assert_eq!(error.to_string(), "the API does not accept events: invalid_api_key");
}
