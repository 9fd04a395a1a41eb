//! What the store should hold, according to the ledger.

use crate::bounds::Bounds;
use crate::event::{EventId, Run};
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

/// The ledger's account of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub run: Run,
    /// By organization and event number.
    states: Vec<Vec<State>>,
    /// How often the changed copy of an event may be found among the conflicts.
    pub changed: BTreeMap<EventId, Bounds>,
    /// How many records the log may have got.
    pub records: Bounds,
    /// Events that had to be refused and were accepted.
    pub invalid_accepted: Vec<EventId>,
    /// Valid events that were refused.
    pub refused: Vec<EventId>,
    pub counts: Counts,
}

/// Events by outcome; repeats are counted apart from events sent for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Events of all requests, without retries: the sum of the next four.
    pub sent: u64,
    pub acked: u64,
    /// Valid events that were refused.
    pub rejected: u64,
    pub unresolved: u64,
    /// Events that had to be refused.
    pub invalid: u64,
    /// Of `acked`: events sent for the first time. So many rows the store should have.
    pub acked_fresh: u64,
    /// Of `acked`: repeats with the same payload.
    pub acked_duplicates: u64,
    /// Of `acked`: repeats with another timestamp or value.
    pub acked_changed: u64,
}

impl Expectation {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut requests: HashMap<u64, Request> = HashMap::new();
        let run = ledger::read(path, |entry| apply(&mut requests, entry))?;
        let mut expectation = Self {
            states: vec![Vec::new(); run.organizations.len()],
            run,
            changed: BTreeMap::new(),
            records: Bounds::default(),
            invalid_accepted: Vec::new(),
            refused: Vec::new(),
            counts: Counts::default(),
        };
        for request in requests.values() {
            expectation.add(request)?;
        }
        Ok(expectation)
    }

    pub fn state(&self, id: EventId) -> State {
        let states = self.states.get(usize::from(id.organization));
        usize::try_from(id.number)
            .ok()
            .and_then(|i| states?.get(i))
            .copied()
            .unwrap_or(State::NotSent)
    }

    /// All events that were sent, with their states, ascending.
    pub fn events(&self) -> impl Iterator<Item = (EventId, State)> + '_ {
        let organizations = (0..).zip(&self.states);
        organizations.flat_map(|(organization, states)| {
            let id = move |number| EventId { organization, number };
            let events = (0..).map(id).zip(states.iter().copied());
            events.filter(|(_, state)| *state != State::NotSent)
        })
    }

    /// One past the highest event number of each organization.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.states.iter().map(Vec::len)
    }

    fn add(&mut self, request: &Request) -> anyhow::Result<()> {
        for (position, slot) in (0..).zip(request.plan.slots()) {
            let (state, records) = request.state(position);
            self.counts.add(slot, state);
            if !matches!(slot, Slot::Invalid(_)) {
                self.records = self.records.plus(records);
            }
            match slot {
                Slot::Fresh(id) => {
                    self.set(id, state)?;
                    if state == State::Rejected {
                        self.refused.push(id);
                    }
                }
                Slot::Duplicate(_) => {}
                Slot::Changed(id) => {
                    let copies = self.changed.entry(id).or_default();
                    *copies = copies.plus(records);
                }
                Slot::Invalid(id) => {
                    if state == State::Acked {
                        self.invalid_accepted.push(id);
                    }
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, id: EventId, state: State) -> anyhow::Result<()> {
        let states = self
            .states
            .get_mut(usize::from(id.organization))
            .with_context(|| format!("the run has no organization {}", id.organization))?;
        let index = usize::try_from(id.number)?;
        if index >= states.len() {
            states.resize(index + 1, State::NotSent);
        }
        if states[index] != State::NotSent {
            bail!("event {} is sent for the first time twice", id.number);
        }
        states[index] = state;
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, slot: Slot, state: State) {
        self.sent += 1;
        if matches!(slot, Slot::Invalid(_)) {
            self.invalid += 1;
            return;
        }
        match state {
            State::Acked => {
                self.acked += 1;
                match slot {
                    Slot::Fresh(_) => self.acked_fresh += 1,
                    Slot::Duplicate(_) => self.acked_duplicates += 1,
                    Slot::Changed(_) | Slot::Invalid(_) => self.acked_changed += 1,
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
    /// What is known of the event at a position, and how many records of it the log may hold.
    fn state(&self, position: u64) -> (State, Bounds) {
        let refused = match &self.outcome {
            None => return (State::Unresolved, Bounds { min: 0, max: self.attempts }),
            Some(Outcome::Acked) => false,
            Some(Outcome::Rejected(None)) => true,
            Some(Outcome::Rejected(Some(slots))) => slots.contains(&position),
        };
        match (refused, self.attempts) {
            (false, attempts) => (State::Acked, Bounds { min: 1, max: attempts }),
            (true, 1) => (State::Rejected, Bounds::default()),
            // An earlier attempt, whose answer is not known, may have been accepted.
            (true, attempts) => (State::Unresolved, Bounds { min: 0, max: attempts - 1 }),
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

    fn id(number: u64) -> EventId {
        EventId { organization: 0, number }
    }

    /// Two accepted requests, one refused, one refused after an unknown outcome, one unknown.
    pub(crate) fn example() -> Expectation {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        let plan = |number: u64, duplicates: &[u64], changed: &[u64]| RequestPlan {
            number,
            organization: 0,
            fresh: 1_000 + number * 10..1_010 + number * 10,
            duplicates: duplicates.to_vec(),
            changed: changed.to_vec(),
            invalid: 0..0,
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
        let states = [999, 1_000, 1_010, 1_020, 1_030, 1_040, 1_050]
            .map(|number| expectation.state(id(number)));
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
        let copies = |number| expectation.changed.get(&id(number)).copied();
        assert_eq!(
            copies(1_002),
            Some(Bounds { min: 1, max: 3 }),
            "accepted at the second attempt, and never answered"
        );
        assert_eq!(
            copies(1_003),
            Some(Bounds { min: 0, max: 1 }),
            "refused after an unknown attempt"
        );
        assert_eq!(copies(1_004), Some(Bounds { min: 0, max: 0 }));
    }

    #[test]
    fn counts_add_up() {
        let counts = example().counts;
        assert_eq!(counts.sent, 55);
        assert_eq!(
            counts.sent,
            counts.acked + counts.rejected + counts.unresolved + counts.invalid
        );
        assert_eq!(
            counts.acked,
            counts.acked_fresh + counts.acked_duplicates + counts.acked_changed
        );
        assert_eq!((counts.acked_fresh, counts.acked_duplicates, counts.acked_changed), (20, 1, 1));
    }

    #[test]
    fn the_log_gets_a_record_per_accepted_event_and_perhaps_one_per_unanswered_attempt() {
        // 10 of the first request; 13 of the second, of which 12 were accepted, twice at most and once;
        // none of the third; 10 of the fourth once, and 11 of the last once.
        assert_eq!(example().records, Bounds { min: 22, max: 10 + 12 * 2 + 1 + 10 + 11 });
    }

    #[test]
    fn invalid_events_are_no_rows_and_must_not_be_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        let plan = |number: u64| RequestPlan {
            number,
            organization: 0,
            fresh: 1_000 + number..1_001 + number,
            duplicates: vec![],
            changed: vec![],
            invalid: number..number + 1,
        };
        ledger.sent(&plan(0)).unwrap();
        ledger.rejected(0, Some(&[1])).unwrap();
        ledger.sent(&plan(1)).unwrap();
        ledger.unknown(1, "timeout").unwrap();
        ledger.retried(1).unwrap();
        ledger.rejected(1, Some(&[1])).unwrap();
        ledger.sent(&plan(2)).unwrap();
        ledger.acked(2).unwrap();
        let expectation = Expectation::read(ledger.path()).unwrap();
        assert_eq!(expectation.invalid_accepted, [id(2)]);
        assert!(expectation.refused.is_empty());
        assert_eq!(expectation.records, Bounds { min: 3, max: 4 });
        let Counts { sent, acked, invalid, unresolved, .. } = expectation.counts;
        assert_eq!((sent, acked, invalid, unresolved), (6, 3, 3, 0));
    }

    #[test]
    fn a_ledger_that_contradicts_itself_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        ledger.acked(9).unwrap();
        assert!(Expectation::read(ledger.path()).is_err());
    }
}
