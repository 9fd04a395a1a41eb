//! What can be wrong, by the rule it breaks, and how it is reported.

use serde::Serialize;
use std::collections::BTreeMap;

/// How many examples of each problem are named.
const EXAMPLES_MAX: usize = 5;

/// A kind of disagreement between the ledger and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Accepted, and no row.
    Missing,
    /// A row of an event that was never sent.
    Extra,
    /// More than one row of an event.
    Doubled,
    /// A row with another payload than the first accepted one.
    WrongPayload,
    /// A row of an event that was refused.
    RejectedStored,
    /// An hour or a day whose count or sum is not that of its events.
    WrongTotal,
    /// The sum of the hashes of all rows is another one, or it is of another number of rows.
    WrongSetHash,
    /// An accepted copy with another payload that is not among the conflicts.
    MissingConflict,
    /// A conflict that no sent copy explains.
    ExtraConflict,
    /// Offsets of the log that no range of the audit covers.
    AuditGap,
    /// A range of the audit whose records do not add up.
    AuditRange,
    /// The audit, the tables and the ledger do not tell of as many records.
    Unbalanced,
    /// More or fewer dead letters than there should be.
    DeadLetters,
    /// Requests whose outcome stayed unknown, so that nothing can be said of their events.
    Unresolved,
    /// Valid events that the API refused.
    Refused,
    /// Answers that broke the API's contract.
    WrongAnswer,
    /// Accepted, and not visible in the time allowed; whether it is lost cannot be told yet.
    NotCaughtUp,
}

/// What is promised. The numbers are those of the reliability documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rule {
    /// Every accepted event has exactly one row, with the first accepted payload.
    #[serde(rename = "L1 accepted events have one row")]
    L1,
    #[serde(rename = "L2 no event has two rows")]
    L2,
    #[serde(rename = "L3 no row was not sent")]
    L3,
    /// No row or one, and exactly one once it was retried successfully.
    #[serde(rename = "L4 unknown outcomes are resolved")]
    L4,
    #[serde(rename = "L5 refused events have no row")]
    L5,
    #[serde(rename = "L6 counts and sums are exact")]
    L6,
    /// There is no aggregator yet.
    #[serde(rename = "L7 windowed aggregates")]
    L7,
    /// There are no alerts yet.
    #[serde(rename = "L8 alerts")]
    L8,
    #[serde(rename = "L9 offsets tile, conflicts are those sent")]
    L9,
    #[serde(rename = "L10 accepted = stored + duplicate + conflict + parked")]
    L10,
    #[serde(rename = "set hash")]
    SetHash,
    #[serde(rename = "answers")]
    Answers,
    #[serde(rename = "liveness")]
    Liveness,
}

/// Whether a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    /// What it speaks of does not exist.
    NotApplicable,
    /// Others may write to the store, so it cannot be told.
    NotChecked,
}

impl Rule {
    const ALL: [Self; 13] = [
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L6,
        Self::L7,
        Self::L8,
        Self::L9,
        Self::L10,
        Self::SetHash,
        Self::Answers,
        Self::Liveness,
    ];
}

impl Problem {
    pub const fn rule(self) -> Rule {
        match self {
            Self::Missing | Self::WrongPayload => Rule::L1,
            Self::Doubled => Rule::L2,
            Self::Extra => Rule::L3,
            Self::Unresolved => Rule::L4,
            Self::RejectedStored => Rule::L5,
            Self::WrongTotal => Rule::L6,
            Self::MissingConflict | Self::ExtraConflict | Self::AuditGap | Self::AuditRange => {
                Rule::L9
            }
            Self::Unbalanced | Self::DeadLetters => Rule::L10,
            Self::WrongSetHash => Rule::SetHash,
            Self::Refused | Self::WrongAnswer => Rule::Answers,
            Self::NotCaughtUp => Rule::Liveness,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Doubled => "doubled",
            Self::WrongPayload => "wrong payload",
            Self::RejectedStored => "refused and stored",
            Self::WrongTotal => "wrong total",
            Self::WrongSetHash => "wrong set hash",
            Self::MissingConflict => "missing conflict",
            Self::ExtraConflict => "extra conflict",
            Self::AuditGap => "gap in the audit",
            Self::AuditRange => "wrong range in the audit",
            Self::Unbalanced => "unbalanced",
            Self::DeadLetters => "dead letters",
            Self::Unresolved => "unresolved",
            Self::Refused => "valid and refused",
            Self::WrongAnswer => "wrong answer",
            Self::NotCaughtUp => "not caught up",
        }
    }
}

/// How often a problem occurred, and where first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub count: u64,
    pub examples: Vec<String>,
}

/// The outcome of a run. No finding means that everything accepted is counted exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub findings: BTreeMap<Problem, Finding>,
    #[serde(flatten)]
    pub store: Store,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Store {
    /// Rows of the run in the billing view.
    pub rows: u64,
    /// Rows of the run in the table beneath it: replays not yet merged are in there.
    pub physical_rows: u64,
    pub conflicts: u64,
    /// As the store calculates it, in decimal, by organization.
    pub set_hashes: BTreeMap<String, String>,
    /// As the ledger says, over all organizations, in decimal.
    pub set_hash: String,
    /// Of the whole store, whoever wrote to it.
    pub audit: crate::audit::Audited,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn add(&mut self, problem: Problem, example: impl FnOnce() -> String) {
        let finding = self.findings.entry(problem).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            finding.examples.push(example());
        }
    }

    /// What holds, rule by rule; `exclusive` says that nobody else wrote to the store.
    pub fn rules(&self, exclusive: bool) -> BTreeMap<Rule, Outcome> {
        let outcome = |rule: Rule| {
            if self.findings.keys().any(|problem| problem.rule() == rule) {
                Outcome::Failed
            } else if matches!(rule, Rule::L7 | Rule::L8) {
                Outcome::NotApplicable
            } else if rule == Rule::L10 && !exclusive {
                Outcome::NotChecked
            } else {
                Outcome::Passed
            }
        };
        Rule::ALL.into_iter().map(|rule| (rule, outcome(rule))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_fails_its_rule_only() {
        let mut verdict = Verdict::default();
        verdict.add(Problem::Doubled, || "a".to_owned());
        let rules = verdict.rules(false);
        assert_eq!(rules[&Rule::L1], Outcome::Passed);
        assert_eq!(rules[&Rule::L2], Outcome::Failed);
        assert_eq!(rules[&Rule::L7], Outcome::NotApplicable);
        assert_eq!(rules[&Rule::L10], Outcome::NotChecked);
        assert_eq!(verdict.rules(true)[&Rule::L10], Outcome::Passed);
        assert_eq!(rules.len(), Rule::ALL.len());
        assert!(
            serde_json::to_string(&rules)
                .unwrap()
                .contains(r#""L7 windowed aggregates":"not_applicable""#)
        );
    }

    #[test]
    fn examples_are_few() {
        let mut verdict = Verdict::default();
        (0..100).for_each(|i| verdict.add(Problem::Missing, || format!("{i}")));
        let finding = &verdict.findings[&Problem::Missing];
        assert_eq!((finding.count, finding.examples.len()), (100, EXAMPLES_MAX));
    }
}
