//! The sweeps: the real core passes all seeds, and a driver that does wrong is caught.

use super::plan::Fault;
use super::run::Case;
use super::sabotage::Sabotage;
use super::sweep::{report, sweep};

/// Seeds of a run in CI.
const SEEDS: u64 = 1000;

#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

#[test]
fn every_seed_bills_every_event_once() {
    if let Some(seed) = variable("SIMULATION_REPLAY") {
        let outcome = Case::of(seed).run(true);
        println!("{}", outcome.trace);
        outcome.verdict.unwrap();
        return;
    }
    let from = variable("SIMULATION_FROM").unwrap_or(0);
    let seeds = variable("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let found = sweep(from..from + seeds, Case::of);
    if let Some((seed, violation)) = found.failure {
        panic!("{}", report(&Case::of(seed), &violation));
    }
    println!("{} runs, seeds {from} to {}\n{}", found.runs, from + seeds - 1, found.coverage);
    if seeds >= SEEDS {
        let missing = found.coverage.missing();
        assert!(missing.is_empty(), "never happened in {seeds} runs: {missing:?}");
    }
}

#[test]
fn every_wrong_behaviour_is_caught() {
    for sabotage in Sabotage::HARMFUL {
        let found = sweep(0..SEEDS, |seed| Case { sabotage: Some(sabotage), ..Case::of(seed) });
        let (seed, violation) =
            found.failure.unwrap_or_else(|| panic!("{sabotage:?} was not caught"));
        println!("{sabotage:?} is caught by seed {seed}: {violation}");
    }
}

#[test]
fn harmless_changes_pass() {
    for sabotage in Sabotage::HARMLESS {
        // The audit of a buffer that is kept speaks of records behind some that are not stored. That is
        // harmless as long as the log has those.
        let without = match sabotage {
            Sabotage::KeepBuffer => vec![Fault::RecreateSameEpoch, Fault::RetentionLoss],
            _ => Vec::new(),
        };
        let case = |seed| {
            let without = without.clone();
            Case { sabotage: Some(sabotage), without, ..Case::of(seed) }
        };
        if let Some((seed, violation)) = sweep(0..SEEDS / 4, case).failure {
            panic!("{sabotage:?}: {}", report(&case(seed), &violation));
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    let hashes: Vec<_> = (0..20).map(|seed| Case::of(seed).run(false).trace_hash).collect();
    let again: Vec<_> = (0..20).map(|seed| Case::of(seed).run(true).trace_hash).collect();
    assert_eq!(hashes, again);
}

/// The same on every machine. They change with every change of the simulation or of what the core
/// decides; one that was not meant to change either is a finding.
#[test]
fn these_seeds_are_known() {
    let hashes = [0, 1, 2, 3, 1000].map(|seed| Case::of(seed).run(false).trace_hash);
    assert_eq!(
        hashes,
        [
            9_376_900_964_499_228_832,
            2_599_404_777_576_829_508,
            2_394_161_455_044_667_575,
            3_054_945_243_492_938_699,
            43_103_040_599_574_629,
        ]
    );
}
