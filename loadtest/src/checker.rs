//! Whether the store counts every accepted event exactly once. Pure: rows go in, a verdict comes out.

use crate::bounds::Bounds;
use crate::decimal;
use crate::event::{EventId, Facts, Run};
use crate::expectation::{Expectation, State};
use crate::set_hash::SetHash;
use crate::totals::{Period, TotalRow, Totals};
use crate::verdict::{Problem, Verdict};
use num_bigint::BigInt;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A row of the billing view, or of the conflicts.
#[derive(Clone, Debug)]
pub struct EventRow<'a> {
    pub organization: &'a str,
    pub scope: &'a str,
    pub transaction_id: &'a str,
    pub code: &'a str,
    pub customer: &'a str,
    /// Empty when the event names none.
    pub subscription: &'a str,
    pub timestamp_ms: i64,
    /// As ClickHouse prints it; `None` for null.
    pub value: Option<&'a str>,
    /// The JSON text.
    pub properties: Cow<'a, str>,
}

/// The sum of the hashes of an organization's rows, as the store calculates it.
#[derive(Clone, Copy, Debug)]
pub struct SetHashRow<'a> {
    pub organization: &'a str,
    pub rows: u64,
    /// In decimal.
    pub hash: &'a str,
}

/// What is known beside the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Everything that was sent has been consumed, so that what is not there is lost.
    pub drained: bool,
    /// The log may hold an event more often than it was sent, as without an idempotent producer.
    pub log_may_duplicate: bool,
    /// Valid events may have been refused, as with a clock that is wrong by days.
    pub refusals_allowed: bool,
}

/// Compares the store's rows with the ledger: first all events, then the rest in any order.
#[derive(Debug)]
pub struct Checker<'a> {
    expectation: &'a Expectation,
    terms: Terms,
    verdict: Verdict,
    /// Rows by organization and event number; stops at 255.
    seen: Vec<Vec<u8>>,
    /// The name of the only organization, when the ledger does not know it.
    learned: Option<String>,
    conflicts: BTreeMap<EventId, u64>,
}

impl<'a> Checker<'a> {
    pub fn new(expectation: &'a Expectation, terms: Terms) -> Self {
        Self {
            expectation,
            terms,
            verdict: Verdict::default(),
            seen: expectation.numbers().map(|numbers| vec![0; numbers]).collect(),
            learned: None,
            conflicts: BTreeMap::new(),
        }
    }

    pub fn event(&mut self, row: EventRow<'_>) {
        self.verdict.store.rows += 1;
        let run = &self.expectation.run;
        if self.learned.is_none() {
            self.learned = Some(row.organization.to_owned());
        }
        let found = self.find(&row);
        let state = found.map_or(State::NotSent, |id| self.expectation.state(id));
        let (Some(id), State::Acked | State::Unresolved) = (found, state) else {
            let refused = state == State::Rejected || run.is_invalid_id(row.transaction_id);
            let problem = if refused { Problem::RejectedStored } else { Problem::Extra };
            self.verdict.add(problem, || format!("{row:?}"));
            return;
        };
        let seen = self.seen[usize::from(id.organization)]
            .get_mut(usize::try_from(id.number).expect("an index"))
            .expect("an event that was sent");
        *seen = seen.saturating_add(1);
        if *seen > 1 {
            self.verdict.add(Problem::Doubled, || run.name(id));
        }
        if !says(run, &run.facts(id), &row) {
            self.verdict.add(Problem::WrongPayload, || format!("{row:?}"));
        }
    }

    /// To be called once all events are in.
    pub fn end_events(&mut self) {
        let run = &self.expectation.run;
        for (id, state) in self.expectation.events() {
            match state {
                State::Acked if !self.is_seen(id) => {
                    let drained = self.terms.drained;
                    let problem = if drained { Problem::Missing } else { Problem::NotCaughtUp };
                    self.verdict.add(problem, || run.name(id));
                }
                State::Unresolved => self.verdict.add(Problem::Unresolved, || run.name(id)),
                State::Acked | State::Rejected | State::NotSent => {}
            }
        }
        for id in &self.expectation.invalid_accepted {
            let name = || format!("{} was accepted", run.invalid_id(id.number));
            self.verdict.add(Problem::WrongAnswer, name);
        }
        if !self.terms.refusals_allowed {
            for id in &self.expectation.refused {
                self.verdict.add(Problem::Refused, || run.name(*id));
            }
        }
    }

    /// What the totals of a period should be. To be called after [`Checker::end_events`].
    pub fn totals(&self, period: Period) -> Totals {
        let mut totals = Totals::new(period);
        for id in self.counted() {
            totals.expect(id.organization, &self.expectation.run.facts(id));
        }
        totals
    }

    pub fn total(&mut self, totals: &mut Totals, row: TotalRow<'_>) {
        let organization = self.organization(row.organization);
        if let Some(wrong) = totals.check(&self.expectation.run, organization, row) {
            self.verdict.add(Problem::WrongTotal, || wrong);
        }
    }

    pub fn end_totals(&mut self, totals: &Totals) {
        for wrong in totals.rest(&self.expectation.run) {
            self.verdict.add(Problem::WrongTotal, || wrong);
        }
    }

    /// To be called with all rows of the query, after [`Checker::end_events`].
    pub fn set_hashes(&mut self, rows: &[SetHashRow<'_>]) {
        let mut expected: BTreeMap<String, SetHash> = BTreeMap::new();
        let mut row = Vec::with_capacity(512);
        let run = &self.expectation.run;
        for id in self.counted() {
            let organization = self.name(id.organization);
            row.clear();
            run.facts(id).write_row(run, id, organization, &mut row);
            match expected.get_mut(organization) {
                Some(hash) => hash.add(&row),
                None => expected.entry(organization.to_owned()).or_default().add(&row),
            }
        }
        let mut all = SetHash::default();
        expected.values().for_each(|hash| all.add_all(hash));
        self.verdict.store.set_hash = all.to_string();
        for found in rows {
            self.verdict
                .store
                .set_hashes
                .insert(found.organization.to_owned(), found.hash.to_owned());
            let hash = expected.remove(found.organization).unwrap_or_default();
            if hash.rows != found.rows || hash.to_string() != found.hash {
                let example = || format!("{found:?}, expected {} rows and {hash}", hash.rows);
                self.verdict.add(Problem::WrongSetHash, example);
            }
        }
        for (organization, hash) in expected {
            let example = || format!("none of {organization}, expected {} rows", hash.rows);
            self.verdict.add(Problem::WrongSetHash, example);
        }
    }

    pub fn conflict(&mut self, row: EventRow<'_>) {
        self.verdict.store.conflicts += 1;
        let run = &self.expectation.run;
        let id = self.find(&row).filter(|id| self.expectation.changed.contains_key(id));
        match id {
            Some(id) if says(run, &run.changed(id), &row) => {
                *self.conflicts.entry(id).or_default() += 1;
            }
            _ => self.verdict.add(Problem::ExtraConflict, || format!("{row:?}")),
        }
    }

    pub fn finish(mut self) -> Verdict {
        let run = &self.expectation.run;
        for (id, copies) in &self.expectation.changed {
            let found = self.conflicts.get(id).copied().unwrap_or(0);
            let most =
                if self.terms.log_may_duplicate && found > 0 { u64::MAX } else { copies.max };
            if found < copies.min {
                let drained = self.terms.drained;
                let problem = if drained { Problem::MissingConflict } else { Problem::NotCaughtUp };
                self.verdict.add(problem, || run.name(*id));
            } else if !(Bounds { max: most, ..*copies }).contains(found) {
                self.verdict.add(Problem::ExtraConflict, || run.name(*id));
            }
        }
        self.verdict
    }

    /// The events that have a row, or should.
    fn counted(&self) -> impl Iterator<Item = EventId> + '_ {
        let drained = self.terms.drained;
        let is_counted = move |(id, state): &(EventId, State)| match state {
            State::Acked => drained || self.is_seen(*id),
            State::Unresolved => self.is_seen(*id),
            State::Rejected | State::NotSent => false,
        };
        self.expectation.events().filter(is_counted).map(|(id, _)| id)
    }

    fn is_seen(&self, id: EventId) -> bool {
        let seen = self.seen.get(usize::from(id.organization));
        let index = usize::try_from(id.number).ok();
        index.and_then(|i| seen?.get(i)).is_some_and(|rows| *rows > 0)
    }

    fn find(&self, row: &EventRow<'_>) -> Option<EventId> {
        let organization = self.organization(row.organization)?;
        self.expectation.run.find(organization, row.scope, row.transaction_id)
    }

    fn organization(&self, name: &str) -> Option<u16> {
        let organizations = self.expectation.run.organizations.len();
        (0..).take(organizations).find(|i| self.name(*i) == name)
    }

    fn name(&self, organization: u16) -> &str {
        let name = &self.expectation.run.organizations[usize::from(organization)];
        if name.is_empty() { self.learned.as_deref().unwrap_or("") } else { name }
    }
}

fn says(run: &Run, facts: &Facts, row: &EventRow<'_>) -> bool {
    let mut properties = Vec::with_capacity(256);
    facts.write_properties(run, &mut properties);
    row.value.map(decimal::parse) == facts.value.map(|value| Some(BigInt::from(value)))
        && row.code == run.metrics[facts.metric].code
        && row.timestamp_ms == facts.timestamp_ms
        && run.customer_of(row.customer) == Some(facts.customer)
        && run.subscription_of(row.customer, row.subscription) == Some(facts.subscription)
        && row.properties.as_bytes() == properties
}

#[cfg(test)]
mod tests;
