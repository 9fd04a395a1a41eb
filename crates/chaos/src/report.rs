//! What all trials together say, as a file for machines and a table for people.

use crate::trial::{Trial, Verdict};
use anyhow::Context as _;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The sums over trials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub trials: u64,
    pub passed: u64,
    pub failed: u64,
    pub broken: u64,
    pub faults: u64,
    pub stops_at_points: u64,
    pub service_restarts: u64,
    pub events_sent: u64,
    pub events_accepted: u64,
    /// Distinct events in the billing view.
    pub events_billed: u64,
    pub requests_of_unknown_outcome: u64,
    /// With 0 failures in n trials, the share of such schedules that fail is below 3/n with 95 %
    /// confidence (rule of three), as a decimal; `null` when one has failed.
    pub failure_share_below: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    totals: &'a Totals,
    trials: &'a [Trial],
}

impl Totals {
    pub fn of(trials: &[Trial]) -> Self {
        let mut totals = Self::default();
        for trial in trials {
            totals.trials += 1;
            match trial.verdict {
                Verdict::Passed => totals.passed += 1,
                Verdict::Failed => totals.failed += 1,
                Verdict::Broken => totals.broken += 1,
            }
            totals.faults += u64::try_from(trial.schedule.len()).unwrap_or(0);
            totals.stops_at_points += u64::try_from(trial.fired.len()).unwrap_or(0);
            totals.service_restarts +=
                trial.starts.values().map(|starts| u64::from(starts.restarts)).sum::<u64>();
            let number =
                |path: &str| trial.load.pointer(path).and_then(|n| n.as_u64()).unwrap_or(0);
            totals.events_sent += number("/counts/sent");
            totals.events_accepted += number("/counts/acked");
            totals.events_billed += number("/verdict/rows");
            totals.requests_of_unknown_outcome += number("/unknown_attempts");
        }
        totals.failure_share_below =
            (totals.failed == 0 && totals.passed > 0).then(|| share(3, totals.passed));
        totals
    }

    /// Whether every trial has passed.
    pub const fn all_passed(&self) -> bool {
        self.passed == self.trials
    }
}

/// `part / whole` with four digits, rounded up.
fn share(part: u64, whole: u64) -> String {
    let units = (part * 10_000).div_ceil(whole);
    format!("{}.{:04}", units / 10_000, units % 10_000)
}

/// Writes `<name>.json` and `<name>.txt` into `directory`.
pub fn write(directory: &Path, name: &str, trials: &[Trial]) -> anyhow::Result<Totals> {
    let totals = Totals::of(trials);
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let report = serde_json::to_vec_pretty(&Report { totals: &totals, trials })?;
    fs::write(directory.join(format!("{name}.json")), report)?;
    fs::write(directory.join(format!("{name}.txt")), text(&totals, trials))?;
    Ok(totals)
}

/// The table for people.
pub fn text(totals: &Totals, trials: &[Trial]) -> String {
    let mut text = String::new();
    for trial in trials {
        // Writing to a String cannot fail.
        writeln!(text, "{}", line(trial)).ok();
    }
    let Totals {
        trials: count,
        passed,
        failed,
        broken,
        faults,
        stops_at_points,
        service_restarts,
        events_sent,
        events_accepted,
        events_billed,
        requests_of_unknown_outcome,
        failure_share_below,
    } = totals;
    writeln!(
        text,
        "\n{count} trials: {passed} passed, {failed} failed, {broken} broken\n\
         {faults} faults, {stops_at_points} stops at points, {service_restarts} restarts of services\n\
         {events_sent} events sent (repeats included), {events_accepted} accepted, {events_billed} billed; \
         {requests_of_unknown_outcome} attempts of unknown outcome"
    )
    .ok();
    if let Some(share) = failure_share_below {
        writeln!(
            text,
            "no failure: with 95 % confidence less than {share} of such schedules fail (3/{passed})"
        )
        .ok();
    }
    text
}

/// A trial in one line, and how to repeat it when it did not pass.
pub fn line(trial: &Trial) -> String {
    let Trial { engines, seed, verdict, findings, reason, schedule, seconds, kept, .. } = trial;
    let mut line = format!(
        "{engines:<9} seed {seed:<20} {:<7} {:>3} s  {:>2} faults",
        format!("{verdict:?}").to_lowercase(),
        seconds,
        schedule.len()
    );
    if *verdict != Verdict::Passed {
        let reason = reason.as_deref().unwrap_or("");
        write!(line, "  {findings:?} {reason}").ok();
        write!(line, "\n  again: chaos run --engines {engines} --seed {seed}").ok();
        if let Some(kept) = kept {
            write!(line, "\n  data and logs: {}", kept.display()).ok();
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
}
