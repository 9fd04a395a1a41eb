//! What the suite found, as a table for people and a file for machines.

use super::{Case, Found, Scenario};
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What one run says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A wrong behaviour was found by what it must be found by.
    Caught,
    /// The product as it is, or with a harmless change, passed.
    Passed,
    /// A wrong behaviour was not found, or not by what it must be found by.
    Missed,
    /// Something was found where nothing is wrong.
    FalseAlarm,
    /// The run itself did not work, so that it says nothing.
    Broken,
}

/// One run of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// `None` for the product as it is.
    pub sabotage: Option<&'static str>,
    pub published_by: &'static str,
    pub harmless: bool,
    pub scenario: &'static str,
    pub fault: &'static str,
    pub outcome: Outcome,
    /// Kinds of disagreement, and how often.
    pub findings: BTreeMap<String, u64>,
    /// All that the judge says, with examples.
    pub verdict: Value,
    /// Why it is broken, or where its data and logs are.
    pub reason: Option<String>,
    pub seconds: u64,
}

impl Line {
    pub(super) fn new(
        scenario: Scenario,
        case: Option<Case>,
        found: anyhow::Result<Found>,
        took: Duration,
    ) -> Self {
        let (outcome, found, reason) = match found {
            Ok(found) => (judge(case, &found.findings), found, None),
            Err(error) => (Outcome::Broken, Found::default(), Some(format!("{error:#}"))),
        };
        let Found { findings, verdict, kept } = found;
        let reason = reason.or(kept.map(|kept| format!("data and logs: {}", kept.display())));
        Self {
            sabotage: case.map(|case| case.sabotage.name()),
            published_by: case.map_or("", |case| case.published_by),
            harmless: case.is_some_and(|case| case.sabotage.is_harmless()),
            scenario: scenario.name(),
            fault: scenario.fault(),
            outcome,
            findings,
            verdict,
            reason,
            seconds: took.as_secs(),
        }
    }

    const fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Caught | Outcome::Passed)
    }
}

fn judge(case: Option<Case>, findings: &BTreeMap<String, u64>) -> Outcome {
    let expected = case.map_or(&[][..], |case| case.expected);
    match (expected.is_empty(), findings.is_empty()) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::FalseAlarm,
        (false, _) if expected.iter().any(|kind| findings.contains_key(*kind)) => Outcome::Caught,
        (false, _) => Outcome::Missed,
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings: Vec<_> =
            self.findings.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let (outcome, seconds) = (format!("{:?}", self.outcome), format!("{} s", self.seconds));
        let what = [findings.join(", "), self.reason.clone().unwrap_or_default()].join(" ");
        let sabotage = self.sabotage.unwrap_or("none");
        write_row(f, [sabotage, self.published_by, self.fault, &outcome, &seconds, what.trim()])
    }
}

fn write_row(f: &mut impl fmt::Write, columns: [&str; 6]) -> fmt::Result {
    let [sabotage, published_by, fault, outcome, seconds, findings] = columns;
    write!(
        f,
        "{sabotage:<25} | {published_by:<30} | {fault:<64} | {outcome:<10} | {seconds:>5} | {findings}"
    )
}

/// All runs.
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    pub caught: usize,
    pub wrong_behaviours: usize,
    pub harmless_passed: usize,
    pub harmless: usize,
    pub controls_passed: usize,
    pub controls: usize,
    pub lines: Vec<Line>,
}

impl Suite {
    pub(super) fn new(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| (line.sabotage.is_some(), line.harmless, line.scenario));
        let count = |is: &dyn Fn(&Line) -> bool| lines.iter().filter(|line| is(line)).count();
        let wrong = |line: &Line| line.sabotage.is_some() && !line.harmless;
        let control = |line: &Line| line.sabotage.is_none();
        Self {
            caught: count(&|line| wrong(line) && line.is_good()),
            wrong_behaviours: count(&wrong),
            harmless_passed: count(&|line| line.harmless && line.is_good()),
            harmless: count(&|line| line.harmless),
            controls_passed: count(&|line| control(line) && line.is_good()),
            controls: count(&control),
            lines,
        }
    }

    /// Whether everything wrong was caught and everything right has passed.
    pub fn passed(&self) -> bool {
        self.lines.iter().all(Line::is_good)
    }

    /// Writes `sabotage.json` and `sabotage.txt` into `directory`.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        fs::write(directory.join("sabotage.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(fs::write(directory.join("sabotage.txt"), self.text())?)
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        write_row(
            &mut text,
            ["wrong behaviour", "published by", "fault", "outcome", "took", "findings"],
        )
        .ok();
        text.push('\n');
        for line in &self.lines {
            writeln!(text, "{line}").ok();
        }
        let Self { caught, wrong_behaviours, harmless_passed, harmless, .. } = self;
        let Self { controls_passed, controls, .. } = self;
        writeln!(
            text,
            "\n{caught} of {wrong_behaviours} wrong behaviours caught, {harmless_passed} of {harmless} harmless ones passed; \
             without any, {controls_passed} of {controls} scenarios passed"
        )
        .ok();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use fault_injection::Sabotage;

    fn outcome(sabotage: Option<Sabotage>, found: &[&str]) -> Outcome {
        let findings = found.iter().map(|kind| ((*kind).to_owned(), 1)).collect();
        judge(sabotage.map(Case::of), &findings)
    }

    #[test]
    fn a_wrong_behaviour_is_caught_by_the_finding_it_must_produce() {
        let wrong = Some(Sabotage::TimestampInIdentity);
        assert_eq!(outcome(wrong, &["doubled", "wrong_total"]), Outcome::Caught);
        assert_eq!(outcome(wrong, &["not_caught_up"]), Outcome::Missed);
        assert_eq!(outcome(wrong, &[]), Outcome::Missed);
    }

    #[test]
    fn the_product_and_harmless_changes_have_to_pass() {
        for harmless in [None, Some(Sabotage::OneToken)] {
            assert_eq!(outcome(harmless, &[]), Outcome::Passed);
            assert_eq!(outcome(harmless, &["doubled"]), Outcome::FalseAlarm);
        }
    }

    #[test]
    fn a_run_that_broke_fails_the_suite() {
        let line = |found| Line::new(Scenario::Traffic, None, found, Duration::ZERO);
        assert!(Suite::new(vec![line(Ok(Found::default()))]).passed());
        let suite = Suite::new(vec![line(Ok(Found::default())), line(Err(anyhow!("no engine")))]);
        assert!(!suite.passed() && suite.text().contains("1 of 2 scenarios passed"));
    }
}
