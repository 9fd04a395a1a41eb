//! Whether the rig finds what it is there to find: the stack with known bugs, one at a time.
//!
//! Each scenario runs once as the product is, and has to pass; and once with each wrong behaviour that
//! it is there for, which its judge has to find. Harmless changes have to pass.

mod cases;
mod probe;
mod report;
mod scenario;

pub use cases::{CASES, Case};
pub use report::{Line, Outcome, Suite};
pub use scenario::Scenario;

use anyhow::bail;
use fault_injection::Sabotage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What a judge has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Kinds of disagreement, and how often.
    pub findings: BTreeMap<String, u64>,
    /// All that the judge says, with examples.
    pub verdict: Value,
    /// Data and logs, when they are worth a look.
    pub kept: Option<PathBuf>,
}

/// The cases of these names, or all.
pub fn cases(names: &[String]) -> anyhow::Result<Vec<Case>> {
    if names.is_empty() {
        return Ok(CASES.to_vec());
    }
    let find = |name: &String| match Sabotage::from_name(name) {
        Some(sabotage) => Ok(Case::of(sabotage)),
        None => bail!("no sabotage is called `{name}`"),
    };
    names.iter().map(find).collect()
}

/// Runs `cases` and the scenarios they need, `parallel` of them at the same time.
pub fn run(cases: &[Case], parallel: u8, tell: impl Fn(&str) + Sync) -> Suite {
    let mut jobs: Vec<_> = Scenario::ALL
        .iter()
        .filter(|scenario| cases.iter().any(|case| case.scenario == **scenario))
        .map(|scenario| (*scenario, None))
        .chain(cases.iter().map(|case| (case.scenario, Some(*case))))
        .collect();
    // Taken from the end: those on servers take longest.
    jobs.sort_by_key(|(scenario, _)| scenario.is_on_servers());
    let (jobs, lines) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| {
                while let Some((scenario, case)) = take(&jobs) {
                    let line = run_one(scenario, case);
                    tell(&line.to_string());
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
    });
    Suite::new(lines.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn take<T>(jobs: &Mutex<Vec<T>>) -> Option<T> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn run_one(scenario: Scenario, case: Option<Case>) -> Line {
    let begin = Instant::now();
    let found = scenario.run(case.map(|case| case.sabotage));
    Line::new(scenario, case, found, begin.elapsed())
}
