//! Whether the store counts every accepted event exactly once. Pure: rows go in, a verdict comes out.

use crate::decimal;
use crate::event::{Aggregation, Run};
use crate::expectation::{Expectation, State};
use num_bigint::BigInt;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// How many examples of each problem are named.
const EXAMPLES_MAX: usize = 5;

/// A row of the billing view.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    pub organization: &'a str,
    pub scope: &'a str,
    pub transaction_id: &'a str,
    pub code: &'a str,
    pub customer: &'a str,
    pub timestamp_ms: i64,
    /// As ClickHouse prints it; `None` for null.
    pub value: Option<&'a str>,
}

/// A row of the hourly view, for one customer and metric.
#[derive(Clone, Copy, Debug)]
pub struct HourRow<'a> {
    pub code: &'a str,
    pub customer: &'a str,
    /// Seconds since 1970 of the start of the hour.
    pub hour: i64,
    pub events: u64,
    pub sum: &'a str,
}

/// A row of the conflicts.
#[derive(Clone, Copy, Debug)]
pub struct ConflictRow<'a> {
    pub transaction_id: &'a str,
    pub timestamp_ms: i64,
}

/// A kind of disagreement between the ledger and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Accepted, and no row.
    Missing,
    /// A row of an event that was never sent, or that was refused.
    Extra,
    /// More than one row of an event.
    Doubled,
    /// A row with another payload than the first accepted one, or of another organization or scope.
    WrongPayload,
    /// An hour whose count or sum is not that of its events.
    WrongTotal,
    /// An accepted copy with another payload that is not among the conflicts.
    MissingConflict,
    /// A conflict that no sent copy explains.
    ExtraConflict,
    /// Requests whose outcome stayed unknown, so that nothing can be said of their events.
    Unresolved,
    /// Answers that broke the API's contract.
    WrongAnswer,
}

impl Problem {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Doubled => "doubled",
            Self::WrongPayload => "wrong payload",
            Self::WrongTotal => "wrong total",
            Self::MissingConflict => "missing conflict",
            Self::ExtraConflict => "extra conflict",
            Self::Unresolved => "unresolved",
            Self::WrongAnswer => "wrong answer",
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
    /// Rows of the run in the billing view.
    pub rows: u64,
    pub findings: BTreeMap<Problem, Finding>,
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
}

/// Compares the store's rows with the ledger: first all events, then the hours and the conflicts.
#[derive(Debug)]
pub struct Checker<'a> {
    expectation: &'a Expectation,
    verdict: Verdict,
    /// Rows by event number; stops at 255.
    seen: Vec<u8>,
    organization: Option<String>,
    hours: HashMap<(usize, u32, i64), (u64, BigInt)>,
    conflicts: BTreeMap<u64, u64>,
}

impl<'a> Checker<'a> {
    pub fn new(expectation: &'a Expectation) -> Self {
        let organization =
            Some(expectation.run.organization.clone()).filter(|name| !name.is_empty());
        let seen = vec![0; expectation.numbers()];
        Self {
            expectation,
            verdict: Verdict::default(),
            seen,
            organization,
            hours: HashMap::new(),
            conflicts: BTreeMap::new(),
        }
    }

    pub fn event(&mut self, row: EventRow<'_>) {
        self.verdict.rows += 1;
        let run = &self.expectation.run;
        let number = run.number_of(row.transaction_id);
        let Some(number) = number
            .filter(|n| matches!(self.expectation.state(*n), State::Acked | State::Unresolved))
        else {
            self.verdict.add(Problem::Extra, || row.transaction_id.to_owned());
            return;
        };
        let seen = usize::try_from(number)
            .ok()
            .and_then(|i| self.seen.get_mut(i))
            .expect("an event that was sent");
        *seen = seen.saturating_add(1);
        if *seen > 1 {
            self.verdict.add(Problem::Doubled, || row.transaction_id.to_owned());
        }
        let organization = self.organization.get_or_insert_with(|| row.organization.to_owned());
        if organization != row.organization
            || !row.scope.is_empty()
            || !says_the_facts(run, number, &row)
        {
            self.verdict.add(Problem::WrongPayload, || format!("{row:?}"));
        }
    }

    /// To be called once all events are in.
    pub fn begin_hours(&mut self) {
        let run = &self.expectation.run;
        for (number, state) in self.expectation.events() {
            let seen =
                usize::try_from(number).ok().and_then(|i| self.seen.get(i)).copied().unwrap_or(0);
            match state {
                State::Acked if seen == 0 => {
                    self.verdict.add(Problem::Missing, || run.transaction_id(number));
                }
                State::Unresolved => {
                    self.verdict.add(Problem::Unresolved, || run.transaction_id(number));
                }
                State::Acked | State::Rejected | State::NotSent => {}
            }
            if state == State::Acked || (state == State::Unresolved && seen > 0) {
                let facts = run.facts(number);
                let hour = facts.timestamp_ms.div_euclid(3_600_000) * 3_600;
                let (events, sum) =
                    self.hours.entry((facts.metric, facts.customer, hour)).or_default();
                *events += 1;
                *sum += facts.value.unwrap_or(0);
            }
        }
    }

    pub fn hour(&mut self, row: HourRow<'_>) {
        let run = &self.expectation.run;
        let metric = run.metrics.iter().position(|metric| metric.code == row.code);
        let key = metric
            .zip(run.customer_of(row.customer))
            .map(|(metric, customer)| (metric, customer, row.hour));
        let expected = key.and_then(|key| self.hours.remove(&key));
        let agrees = expected.as_ref().is_some_and(|(events, sum)| {
            *events == row.events && decimal::parse(row.sum).as_ref() == Some(sum)
        });
        if !agrees {
            let (events, sum) = expected.unwrap_or_default();
            self.verdict.add(Problem::WrongTotal, || {
                format!("{row:?}, expected {events} events and {sum} × 10⁻¹²")
            });
        }
    }

    pub fn conflict(&mut self, row: ConflictRow<'_>) {
        let run = &self.expectation.run;
        let number = run
            .number_of(row.transaction_id)
            .filter(|number| self.expectation.restamped.contains_key(number));
        match number {
            Some(number) if run.restamped_ms(number) == row.timestamp_ms => {
                *self.conflicts.entry(number).or_default() += 1;
            }
            _ => self.verdict.add(Problem::ExtraConflict, || row.transaction_id.to_owned()),
        }
    }

    pub fn finish(mut self) -> Verdict {
        let run = &self.expectation.run;
        for (metric, customer, hour) in self.hours.keys() {
            let code = &run.metrics[*metric].code;
            let customer = run.customer_id(*customer);
            self.verdict.add(Problem::WrongTotal, || {
                format!("no row for {code} of {customer} in the hour {hour}")
            });
        }
        for (number, copies) in &self.expectation.restamped {
            let found = self.conflicts.get(number).copied().unwrap_or(0);
            if found < copies.min {
                self.verdict.add(Problem::MissingConflict, || run.transaction_id(*number));
            } else if found > copies.max {
                self.verdict.add(Problem::ExtraConflict, || run.transaction_id(*number));
            }
        }
        self.verdict
    }
}

fn says_the_facts(run: &Run, number: u64, row: &EventRow<'_>) -> bool {
    let facts = run.facts(number);
    let metric = &run.metrics[facts.metric];
    let value = match metric.aggregation {
        Aggregation::Count => row.value.is_none(),
        Aggregation::Sum => row.value.and_then(decimal::parse) == facts.value.map(BigInt::from),
    };
    value
        && row.code == metric.code
        && row.timestamp_ms == facts.timestamp_ms
        && run.customer_of(row.customer) == Some(facts.customer)
}

#[cfg(test)]
mod tests;
