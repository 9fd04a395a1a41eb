//! The command line of the load generator: a run, or `check` for the ledger of an earlier one.

use clap::Parser;
use loadtest::args::{Args, CheckArgs};
use loadtest::report::Report;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// There is no verdict: the system could not be asked.
const NOT_JUDGED: u8 = 2;

fn main() -> anyhow::Result<ExitCode> {
    // One thread: the generator shares the machine with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "check") {
        words.remove(1);
        let args = CheckArgs::parse_from(words);
        let report = tasks.block_on(&runtime, loadtest::run::check(&args));
        finish(report, args.judge.json.as_deref())
    } else {
        let args = Args::parse_from(words);
        let report = tasks.block_on(&runtime, loadtest::run::run(&args));
        finish(report, args.judge.json.as_deref())
    }
}

/// 0: passed; 1: failed; 2: not judged.
fn finish(report: anyhow::Result<Report>, json: Option<&Path>) -> anyhow::Result<ExitCode> {
    let report = report.unwrap_or_else(|error| Report::not_judged(&error));
    // The file first: the reader of the other output may be gone.
    if let Some(path) = json {
        report.save(path)?;
    }
    report.print(&mut std::io::stdout().lock())?;
    Ok(match report.passed() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(NOT_JUDGED),
    })
}
