//! What the store should hold, according to the ledger.

use crate::event::Run;
use crate::ledger::{self, Entry};
use crate::plan::{RequestPlan, Slot};
use anyhow::{Context, bail};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What is known of an event that was sent for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    NotSent,
    /// Accepted: exactly one row, at once and for ever.
    Acked,
    /// Refused at its only attempt: never stored.
    Rejected,
    /// Never answered, or refused after an attempt that was not answered: no row or one.
    Unresolved,
}

/// How often a re-stamped copy of an event may be found among the conflicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    pub min: u64,
    pub max: u64,
}

/// The ledger's account of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub run: Run,
    /// By event number.
    states: Vec<State>,
    /// By event number.
    pub restamped: BTreeMap<u64, Copies>,
    pub counts: Counts,
}

/// Events by outcome; repeats are counted apart from events sent for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Events of all requests, without retries.
    pub sent: u64,
    pub acked: u64,
    pub rejected: u64,
    pub unresolved: u64,
    /// Of `acked`: events sent for the first time. So many rows the store should have.
    pub acked_fresh: u64,
    /// Of `acked`: repeats with the same payload.
    pub acked_duplicates: u64,
    /// Of `acked`: repeats with another timestamp.
    pub acked_restamped: u64,
}

impl Expectation {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut requests: HashMap<u64, Request> = HashMap::new();
        let run = ledger::read(path, |entry| apply(&mut requests, entry))?;
        let mut expectation =
            Self { run, states: Vec::new(), restamped: BTreeMap::new(), counts: Counts::default() };
        for request in requests.values() {
            expectation.add(request)?;
        }
        Ok(expectation)
    }

    pub fn state(&self, number: u64) -> State {
        usize::try_from(number)
            .ok()
            .and_then(|i| self.states.get(i))
            .copied()
            .unwrap_or(State::NotSent)
    }

    /// Numbers and states of all events that were sent, ascending.
    pub fn events(&self) -> impl Iterator<Item = (u64, State)> + '_ {
        (0..).zip(self.states.iter().copied()).filter(|(_, state)| *state != State::NotSent)
    }

    /// One past the highest event number.
    pub fn numbers(&self) -> usize {
        self.states.len()
    }

    fn add(&mut self, request: &Request) -> anyhow::Result<()> {
        for (position, slot) in (0..).zip(request.plan.slots()) {
            let state = request.state(position);
            self.counts.add(slot, state);
            match slot {
                Slot::Fresh(number) => self.set(number, state)?,
                Slot::Duplicate(_) => {}
                Slot::Restamped(number) => {
                    let copies = self.restamped.entry(number).or_default();
                    copies.min += u64::from(state == State::Acked);
                    copies.max += if state == State::Rejected { 0 } else { request.attempts };
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, number: u64, state: State) -> anyhow::Result<()> {
        let index = usize::try_from(number)?;
        if index >= self.states.len() {
            self.states.resize(index + 1, State::NotSent);
        }
        if self.states[index] != State::NotSent {
            bail!("event {number} is sent for the first time twice");
        }
        self.states[index] = state;
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, slot: Slot, state: State) {
        self.sent += 1;
        match state {
            State::Acked => {
                self.acked += 1;
                match slot {
                    Slot::Fresh(_) => self.acked_fresh += 1,
                    Slot::Duplicate(_) => self.acked_duplicates += 1,
                    Slot::Restamped(_) => self.acked_restamped += 1,
                }
            }
            State::Rejected => self.rejected += 1,
            State::Unresolved | State::NotSent => self.unresolved += 1,
        }
    }
}

/// A request and what became of it.
#[derive(Debug)]
struct Request {
    plan: RequestPlan,
    attempts: u64,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Acked,
    Rejected(Option<Vec<u64>>),
}

impl Request {
    fn state(&self, position: u64) -> State {
        let refused = match &self.outcome {
            None => return State::Unresolved,
            Some(Outcome::Acked) => false,
            Some(Outcome::Rejected(None)) => true,
            Some(Outcome::Rejected(Some(slots))) => slots.contains(&position),
        };
        match (refused, self.attempts) {
            (false, _) => State::Acked,
            (true, 1) => State::Rejected,
            // An earlier attempt, whose answer is not known, may have been accepted.
            (true, _) => State::Unresolved,
        }
    }
}

fn apply(requests: &mut HashMap<u64, Request>, entry: Entry) -> anyhow::Result<()> {
    let (number, outcome) = match entry {
        Entry::Sent(plan) => {
            let number = plan.number;
            let known = requests.insert(number, Request { plan, attempts: 1, outcome: None });
            return if known.is_none() { Ok(()) } else { bail!("request {number} is sent twice") };
        }
        Entry::Retried(number) => {
            requests
                .get_mut(&number)
                .with_context(|| format!("request {number} was never sent"))?
                .attempts += 1;
            return Ok(());
        }
        Entry::Unknown(_) => return Ok(()),
        Entry::Acked(number) => (number, Outcome::Acked),
        Entry::Rejected(number, slots) => (number, Outcome::Rejected(slots)),
    };
    let request =
        requests.get_mut(&number).with_context(|| format!("request {number} was never sent"))?;
    if request.outcome.replace(outcome).is_some() {
        bail!("request {number} has two outcomes");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::example_run;
    use crate::ledger::Ledger;

    /// Two accepted requests, one refused, one refused after an unknown outcome, one unknown.
    pub(crate) fn example() -> Expectation {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        let plan = |number: u64, duplicates: &[u64], restamped: &[u64]| RequestPlan {
            number,
            fresh: 1_000 + number * 10..1_010 + number * 10,
            duplicates: duplicates.to_vec(),
            restamped: restamped.to_vec(),
        };
        ledger.sent(&plan(0, &[], &[])).unwrap();
        ledger.acked(0).unwrap();
        ledger.sent(&plan(1, &[1_001], &[1_002, 1_003])).unwrap();
        ledger.unknown(1, "timeout").unwrap();
        ledger.retried(1).unwrap();
        ledger.rejected(1, Some(&[12])).unwrap();
        ledger.sent(&plan(2, &[], &[1_004])).unwrap();
        ledger.rejected(2, None).unwrap();
        ledger.sent(&plan(3, &[], &[])).unwrap();
        ledger.unknown(3, "timeout").unwrap();
        ledger.retried(3).unwrap();
        ledger.rejected(3, None).unwrap();
        ledger.sent(&plan(4, &[], &[1_002])).unwrap();
        Expectation::read(ledger.path()).unwrap()
    }

    #[test]
    fn events_have_the_state_of_their_request() {
        let expectation = example();
        let states =
            [999, 1_000, 1_010, 1_020, 1_030, 1_040, 1_050].map(|number| expectation.state(number));
        let expected = [
            State::NotSent,
            State::Acked,
            State::Acked,
            State::Rejected,
            State::Unresolved,
            State::Unresolved,
            State::NotSent,
        ];
        assert_eq!(states, expected);
        assert_eq!(expectation.events().count(), 50);
    }

    #[test]
    fn copies_that_lie_are_counted_from_acked_to_attempted() {
        let expectation = example();
        let copies = |number| expectation.restamped.get(&number).copied();
        assert_eq!(
            copies(1_002),
            Some(Copies { min: 1, max: 3 }),
            "accepted at the second attempt, and never answered"
        );
        assert_eq!(
            copies(1_003),
            Some(Copies { min: 0, max: 2 }),
            "refused after an unknown attempt"
        );
        assert_eq!(copies(1_004), Some(Copies { min: 0, max: 0 }));
    }

    #[test]
    fn counts_add_up() {
        let counts = example().counts;
        assert_eq!(counts.sent, 55);
        assert_eq!(counts.sent, counts.acked + counts.rejected + counts.unresolved);
        assert_eq!(
            counts.acked,
            counts.acked_fresh + counts.acked_duplicates + counts.acked_restamped
        );
        assert_eq!(
            (counts.acked_fresh, counts.acked_duplicates, counts.acked_restamped),
            (20, 1, 1)
        );
    }

    #[test]
    fn a_ledger_that_contradicts_itself_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        ledger.acked(9).unwrap();
        assert!(Expectation::read(ledger.path()).is_err());
    }
}
