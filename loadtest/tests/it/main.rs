//! Whole runs against a small stand-in of the pipeline that can be told to be wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod pipeline;

use clap::Parser;
use loadtest::args::Args;
use loadtest::report::Report;
use loadtest::verdict::Problem;
use pipeline::{Faults, Pipeline};
use std::time::Duration;

/// 100 requests of 20 events within a second.
fn run_with(faults: Faults, more: &[&str]) -> anyhow::Result<Report> {
    let pipeline = Pipeline::start(faults);
    let directory = tempfile::tempdir().unwrap();
    let (url, directory) = (pipeline.url(), directory.path().to_str().unwrap().to_owned());
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
    let bounds = ["--catch-up-within", "1500ms", "--duplicates", "5%", "--restamped", "5%"];
    let codes = ["--codes", "api_calls=count,tokens=sum:tokens,credits=sum"];
    let args =
        Args::try_parse_from(fixed.iter().chain(&load).chain(&bounds).chain(&codes).chain(more))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, loadtest::run::run(&args))
}

fn problems(faults: Faults) -> Vec<Problem> {
    run_with(faults, &[]).unwrap().verdict.findings.into_keys().collect()
}

#[test]
fn a_pipeline_that_keeps_the_contract_passes() {
    let report = run_with(Faults::default(), &[]).unwrap();
    assert!(report.passed(), "{report:#?}");
    assert_eq!(
        report.counts.sent,
        1 + 2_000 + 1_000,
        "the first event, the load, and the last request"
    );
    assert_eq!(report.counts.acked, report.counts.sent);
    assert!(
        report.counts.acked_duplicates > 80 && report.counts.acked_restamped > 80,
        "{report:#?}"
    );
    assert_eq!(report.verdict.rows, report.counts.acked_fresh);
    assert_eq!(report.ack_latency_us.samples, 100);
    assert!(report.queryable_lag_ms.samples > 0);
    assert_eq!(report.processes.last().unwrap().name, "generator");
}

#[test]
fn outcomes_that_are_unknown_are_retried_with_the_same_ids_until_they_are_known() {
    let faults = Faults { answers_503_every: 7, breaks_connection_every: 9, ..Faults::default() };
    let report = run_with(faults, &[]).unwrap();
    assert!(report.passed(), "{report:#?}");
    assert!(report.unknown_attempts >= 20, "{report:#?}");
    assert_eq!((report.counts.unresolved, report.counts.acked), (0, report.counts.sent));
    assert_eq!(report.ack_latency_us.samples, 100, "retried requests have a latency too");
}

#[test]
fn each_way_to_be_wrong_fails() {
    let lost = problems(Faults { loses_row: Some(700), ..Faults::default() });
    assert_eq!(lost, [Problem::Missing, Problem::WrongTotal]);
    let doubled = problems(Faults { doubles_row: Some(700), ..Faults::default() });
    assert_eq!(doubled, [Problem::Doubled, Problem::WrongTotal]);
    let last_wins = problems(Faults { last_copy_wins: true, ..Faults::default() });
    assert!(last_wins.contains(&Problem::WrongPayload), "{last_wins:?}");
    let floats = problems(Faults { sums_as_floats: true, ..Faults::default() });
    assert_eq!(floats, [Problem::WrongTotal]);
    let no_conflicts = problems(Faults { forgets_conflicts: true, ..Faults::default() });
    assert_eq!(no_conflicts, [Problem::MissingConflict]);
}

#[test]
fn refused_events_are_counted_and_must_not_be_stored() {
    let report = run_with(Faults { refuses_every: 50, ..Faults::default() }, &[]).unwrap();
    assert!(report.passed(), "{report:#?}");
    assert!(report.counts.rejected > 10);
    assert_eq!(report.rejection_codes.get("timestamp_too_old"), Some(&report.counts.rejected));
    let stored = problems(Faults { refuses_every: 50, stores_refused: true, ..Faults::default() });
    assert_eq!(stored, [Problem::Extra, Problem::WrongTotal]);
}

#[test]
fn a_stall_shows_in_the_latency_of_every_request_that_was_due_meanwhile() {
    let stall = Duration::from_millis(400);
    let report =
        run_with(Faults { stalls_once: Some(stall), ..Faults::default() }, &["--connections", "1"])
            .unwrap();
    assert!(report.passed(), "{report:#?}");
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
