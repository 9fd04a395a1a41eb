//! Many runs on all cores, and what to do with one that fails: make it smaller, and say how to see it again.

use super::coverage::Coverage;
use super::plan::FULL_SIZE;
use super::run::{Case, Outcome};
use std::fmt::Write as _;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Lines of a failing run that are shown.
const LINES_SHOWN: usize = 60;

/// What a sweep found: how often everything happened, and the failing seed that is lowest.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) coverage: Coverage,
    pub(super) failure: Option<(u64, String)>,
    pub(super) runs: u64,
}

/// Runs all seeds. It stops early after a failure, and which other seeds were run by then is open.
pub(super) fn sweep(seeds: Range<u64>, case: impl Fn(u64) -> Case + Sync) -> Found {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Found::default());
    let work = || {
        let (mut coverage, mut runs) = (Coverage::default(), 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = case(seed).run(false);
            coverage.add(&outcome.coverage);
            runs += 1;
            if let Err(violation) = outcome.verdict {
                next.store(seeds.end, Ordering::Relaxed);
                let mut found = found.lock().expect("no run panics outside of its case");
                if found.failure.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                    found.failure = Some((seed, violation));
                }
            }
        }
        let mut found = found.lock().expect("no run panics outside of its case");
        found.coverage.add(&coverage);
        found.runs += runs;
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    found.into_inner().expect("no run panics outside of its case")
}

/// The smallest run of the same seed that still fails, and how it went.
pub(super) fn shrink(failing: &Case) -> (Case, Outcome) {
    let mut smallest = failing.clone();
    for size in (1..=20).map(|step| step * 5).filter(|size| *size < FULL_SIZE) {
        let smaller = Case { size, ..failing.clone() };
        if smaller.run(false).verdict.is_err() {
            smallest = smaller;
            break;
        }
    }
    for fault in smallest.plan().faults() {
        let mut calmer = smallest.clone();
        calmer.without.push(fault);
        if calmer.run(false).verdict.is_err() {
            smallest = calmer;
        }
    }
    let outcome = smallest.run(true);
    (smallest, outcome)
}

/// What a person needs to know of a failing seed.
pub(super) fn report(failing: &Case, violation: &str) -> String {
    let (smallest, outcome) = shrink(failing);
    let lines: Vec<_> = outcome.trace.lines().collect();
    let shown = lines.len().saturating_sub(LINES_SHOWN);
    let mut text = format!(
        "seed {seed}: {violation}\nreplay it with: scripts/simulate --replay {seed}\n\
         the smallest run of it has {size} % of the steps, {members} members, {partitions} partitions, the faults {faults:?}, and ends with\n",
        seed = failing.seed,
        size = smallest.size,
        members = smallest.plan().members,
        partitions = smallest.plan().partitions,
        faults = smallest.plan().faults(),
    );
    for line in &lines[shown..] {
        writeln!(text, "{line}").expect("writing to a string");
    }
    text
}
