//! What all trials together say, as a file for machines and a table for people.

use crate::nemesis::Effect;
use crate::trial::{Trial, Verdict};
use anyhow::Context as _;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The sums over the trials on one set of engines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub trials: u64,
    pub passed: u64,
    pub failed: u64,
    pub broken: u64,
    /// Faults of the schedules, and how many of them did something.
    pub faults: u64,
    pub faults_that_hit: u64,
    pub faults_left_out: u64,
    pub service_restarts: u64,
    pub events_sent: u64,
    pub events_accepted: u64,
    /// Distinct events in the billing view.
    pub events_billed: u64,
    pub attempts_of_unknown_outcome: u64,
    /// With 0 failures in n random trials, the share of such schedules that fail is below 3/n with 95 %
    /// confidence (rule of three), as a decimal. `null` when one did not pass, or seeds were chosen.
    pub failure_share_below: Option<String>,
}

/// Trials, and whether their seeds were drawn at random.
#[derive(Clone, Copy, Debug)]
pub struct Trials<'a> {
    pub trials: &'a [Trial],
    pub random_seeds: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    totals: BTreeMap<&'static str, Totals>,
    trials: &'a [Trial],
}

impl Trials<'_> {
    /// By set of engines: what holds for one says little of the other.
    pub fn totals(&self) -> BTreeMap<&'static str, Totals> {
        let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
        for trial in self.trials {
            totals.entry(trial.engines).or_default().add(trial);
        }
        for total in totals.values_mut() {
            let all_passed = total.passed == total.trials;
            total.failure_share_below =
                (self.random_seeds && all_passed).then(|| share(3, total.passed));
        }
        totals
    }

    /// Whether there were trials, and every one has passed.
    pub fn passed(&self) -> bool {
        !self.trials.is_empty() && self.trials.iter().all(|trial| trial.verdict == Verdict::Passed)
    }

    /// Writes `<name>.json` and `<name>.txt` into `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> anyhow::Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let report = Report { totals: self.totals(), trials: self.trials };
        fs::write(directory.join(format!("{name}.json")), serde_json::to_vec_pretty(&report)?)?;
        let lines: Vec<_> = self.trials.iter().map(line).collect();
        fs::write(
            directory.join(format!("{name}.txt")),
            format!("{}\n\n{}", lines.join("\n"), self.text()),
        )?;
        Ok(())
    }

    /// The totals for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (engines, totals) in self.totals() {
            totals.write(engines, &mut text);
        }
        text
    }
}

impl Totals {
    fn add(&mut self, trial: &Trial) {
        self.trials += 1;
        match trial.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Broken => self.broken += 1,
        }
        for record in &trial.faults {
            self.faults += 1;
            self.faults_that_hit += u64::from(record.effect == Effect::Hit);
            self.faults_left_out += u64::from(record.effect == Effect::LeftOut);
        }
        self.service_restarts +=
            trial.starts.values().map(|starts| u64::from(starts.restarts)).sum::<u64>();
        let number = |path: &str| trial.load.pointer(path).and_then(|n| n.as_u64()).unwrap_or(0);
        self.events_sent += number("/counts/sent");
        self.events_accepted += number("/counts/acked");
        self.events_billed += number("/verdict/rows");
        self.attempts_of_unknown_outcome += number("/unknown_attempts");
    }

    fn write(&self, engines: &str, text: &mut String) {
        let Self {
            trials,
            passed,
            failed,
            broken,
            faults,
            faults_that_hit,
            faults_left_out,
            service_restarts,
            events_sent,
            events_accepted,
            events_billed,
            attempts_of_unknown_outcome,
            failure_share_below,
        } = self;
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{engines}: {trials} trials, {passed} passed, {failed} failed, {broken} broken\n  \
             {faults} faults, {faults_that_hit} of them hit something, {faults_left_out} left out; \
             services were started again {service_restarts} times\n  \
             {events_sent} events sent (repeats included), {events_accepted} accepted, {events_billed} billed; \
             {attempts_of_unknown_outcome} attempts of unknown outcome"
        )
        .ok();
        if let Some(share) = failure_share_below {
            writeln!(
                text,
                "  no failure: with 95 % confidence less than {share} of such schedules fail (3/{passed})"
            )
            .ok();
        }
    }
}

/// `part / whole` with four digits, rounded up.
fn share(part: u64, whole: u64) -> String {
    let units = (part * 10_000).div_ceil(whole.max(1));
    format!("{}.{:04}", units / 10_000, units % 10_000)
}

/// A trial in one line, and how to repeat it when it did not pass.
pub fn line(trial: &Trial) -> String {
    let Trial { engines, seed, duration_seconds, verdict, findings, reasons, seconds, .. } = trial;
    let hit = trial.faults.iter().filter(|record| record.effect == Effect::Hit).count();
    let mut line = format!(
        "{engines:<9} seed {seed:<10} {:<7} {seconds:>3} s  {:>2} faults, {hit} hit",
        format!("{verdict:?}").to_lowercase(),
        trial.faults.len()
    );
    if *verdict != Verdict::Passed {
        write!(line, "\n  {findings:?} {}", reasons.join("; ")).ok();
        write!(
            line,
            "\n  again: target/debug/chaos run --engines {engines} --seed {seed} --duration {duration_seconds}s"
        )
        .ok();
        if let Some(kept) = &trial.kept {
            write!(line, "\n  data and logs: {}", kept.display()).ok();
        }
        for timed in trial.reduced.iter().flatten() {
            let (at, lasts, fault) = (timed.at, timed.lasts, timed.fault);
            write!(line, "\n  enough to fail: at {at} ms for {lasts} ms: {fault}").ok();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!(share(3, 100), "0.0300");
        assert_eq!(share(3, 7), "0.4286");
        assert_eq!(share(3, 1), "3.0000");
    }

    #[test]
    fn no_trial_is_no_pass() {
        assert!(!Trials { trials: &[], random_seeds: true }.passed());
    }
}
