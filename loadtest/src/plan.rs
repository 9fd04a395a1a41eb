//! Which events a request carries: fresh ones, repeats of accepted ones, repeats that lie, and invalid ones.

use crate::event::{DRAIN_EVENTS, EventId, Run, mix};
use std::ops::Range;

/// How many accepted requests of an organization repeats are drawn from; beyond it, new ones replace old ones at random.
const REMEMBERED_REQUESTS_MAX: usize = 65_536;
/// Repeats are drawn anew when one is in the request already; after so many attempts a fresh event is sent.
const DRAWS_MAX: u32 = 8;

/// One request, small enough to keep until its outcome is known; the body is written again for a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPlan {
    /// Position among the requests of the run, from zero.
    pub number: u64,
    /// The organization that all of its events belong to.
    pub organization: u16,
    /// Numbers of the events sent for the first time.
    pub fresh: Range<u64>,
    /// Numbers of accepted events that are sent again as they were.
    pub duplicates: Vec<u64>,
    /// Numbers of accepted events that are sent again with another timestamp or value.
    pub changed: Vec<u64>,
    /// Numbers of events that have to be refused, apart from the others' numbers.
    pub invalid: Range<u64>,
}

/// The event at one position of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Fresh(EventId),
    Duplicate(EventId),
    Changed(EventId),
    Invalid(EventId),
}

impl RequestPlan {
    pub fn events(&self) -> u64 {
        self.valid() + self.invalid.end - self.invalid.start
    }

    /// How many events come before the invalid ones.
    pub fn valid(&self) -> u64 {
        let repeats = self.duplicates.len() + self.changed.len();
        self.fresh.end - self.fresh.start + u64::try_from(repeats).expect("a request is bounded")
    }

    /// The events in the order they are sent.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let id = |number| EventId { organization: self.organization, number };
        let fresh = self.fresh.clone().map(move |number| Slot::Fresh(id(number)));
        let duplicates = self.duplicates.iter().map(move |number| Slot::Duplicate(id(*number)));
        let changed = self.changed.iter().map(move |number| Slot::Changed(id(*number)));
        let invalid = self.invalid.clone().map(move |number| Slot::Invalid(id(number)));
        fresh.chain(duplicates).chain(changed).chain(invalid)
    }

    /// The body of the request.
    pub fn body(&self, run: &Run) -> Vec<u8> {
        let events = usize::try_from(self.events()).expect("a request is bounded");
        let mut body = Vec::with_capacity(events * 384 + 16);
        body.extend_from_slice(b"{\"events\":[");
        for (i, slot) in self.slots().enumerate() {
            if i > 0 {
                body.push(b',');
            }
            match slot {
                Slot::Fresh(id) | Slot::Duplicate(id) => run.write_json(id, false, &mut body),
                Slot::Changed(id) => run.write_json(id, true, &mut body),
                Slot::Invalid(id) => run.write_invalid(id, &mut body),
            }
        }
        body.extend_from_slice(b"]}");
        body
    }
}

/// How many of the events are what, in 10,000ths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    pub duplicates: u32,
    pub changed: u32,
    pub invalid: u32,
}

/// Plans request after request, for one organization after the other.
#[derive(Debug)]
pub struct Planner {
    events_per_request: u64,
    duplicates: Share,
    changed: Share,
    invalid: Share,
    next_request: u64,
    noise: u64,
    organizations: Vec<Planned>,
    turn: usize,
}

/// What has been planned for one organization.
#[derive(Debug)]
struct Planned {
    next_event: u64,
    next_invalid: u64,
    accepted: Vec<(u64, u64)>,
}

impl Planner {
    /// # Panics
    /// Without an organization.
    pub fn new(seed: u64, organizations: usize, events_per_request: u64, shares: Shares) -> Self {
        assert!(organizations > 0, "every event has an organization");
        let share = |parts: u32| Share { parts: parts.into(), carry: 0 };
        let planned =
            || Planned { next_event: DRAIN_EVENTS, next_invalid: 0, accepted: Vec::new() };
        Self {
            events_per_request,
            duplicates: share(shares.duplicates),
            changed: share(shares.changed),
            invalid: share(shares.invalid),
            next_request: 0,
            noise: mix(!seed),
            organizations: (0..organizations).map(|_| planned()).collect(),
            turn: 0,
        }
    }

    pub fn plan(&mut self) -> RequestPlan {
        let organization = self.turn;
        self.turn = (organization + 1) % self.organizations.len();
        let events = self.events_per_request;
        let duplicates = self.duplicates.take(events, events);
        let changed = self.changed.take(events, events - duplicates);
        let invalid = self.invalid.take(events, events - duplicates - changed);
        let mut drawn = self.draw(organization, duplicates + changed);
        let duplicates = usize::try_from(duplicates).expect("bounded by the request");
        let changed = drawn.split_off(drawn.len().min(duplicates));
        let repeats = u64::try_from(drawn.len() + changed.len()).expect("bounded by the request");
        let planned = &mut self.organizations[organization];
        let invalid = take(&mut planned.next_invalid, invalid);
        let fresh = take(&mut planned.next_event, events - repeats - (invalid.end - invalid.start));
        RequestPlan { duplicates: drawn, changed, invalid, ..self.fresh_only(organization, fresh) }
    }

    /// A request of fresh events only.
    pub fn plan_fresh(&mut self, organization: u16, events: u64) -> RequestPlan {
        let organization = usize::from(organization);
        let fresh = take(&mut self.organizations[organization].next_event, events);
        self.fresh_only(organization, fresh)
    }

    /// The last request of a run; see [`DRAIN_EVENTS`].
    pub fn plan_drain(&mut self) -> RequestPlan {
        self.fresh_only(0, 0..DRAIN_EVENTS)
    }

    /// Every valid event of `plan` was accepted, so copies of them may be sent from now on.
    ///
    /// Not before: the first copy in the log is the one that counts, and only an accepted event is
    /// known to be in it.
    pub fn accepted(&mut self, plan: &RequestPlan) {
        if plan.fresh.is_empty() {
            return;
        }
        let entry = (plan.fresh.start, plan.fresh.end);
        let place = self.random(REMEMBERED_REQUESTS_MAX);
        let accepted = &mut self.organizations[usize::from(plan.organization)].accepted;
        if accepted.len() < REMEMBERED_REQUESTS_MAX {
            accepted.push(entry);
        } else {
            accepted[place] = entry;
        }
    }

    fn fresh_only(&mut self, organization: usize, fresh: Range<u64>) -> RequestPlan {
        let number = self.next_request;
        self.next_request += 1;
        RequestPlan {
            number,
            organization: u16::try_from(organization).expect("a short list of organizations"),
            fresh,
            duplicates: Vec::new(),
            changed: Vec::new(),
            invalid: 0..0,
        }
    }

    /// Up to `count` different accepted events. Different, because a repeat within one request is
    /// refused or answered `duplicate` by the API and never reaches the log.
    fn draw(&mut self, organization: usize, count: u64) -> Vec<u64> {
        let mut drawn = Vec::new();
        let requests = self.organizations[organization].accepted.len();
        if requests == 0 {
            return drawn;
        }
        for _ in 0..count {
            for _ in 0..DRAWS_MAX {
                let place = self.random(requests);
                let (start, end) = self.organizations[organization].accepted[place];
                let number = start + self.next_noise() % (end - start);
                if !drawn.contains(&number) {
                    drawn.push(number);
                    break;
                }
            }
        }
        drawn
    }

    fn random(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a length");
        usize::try_from(self.next_noise() % length).expect("below a length")
    }

    fn next_noise(&mut self) -> u64 {
        self.noise = mix(self.noise);
        self.noise
    }
}

fn take(next: &mut u64, count: u64) -> Range<u64> {
    let start = *next;
    *next += count;
    start..*next
}

/// A share of all events that is right on average even when a request holds less than one of them.
#[derive(Debug)]
struct Share {
    parts: u64,
    carry: u64,
}

impl Share {
    /// The share of `events` more events, but at most `room` now; the rest is owed.
    fn take(&mut self, events: u64, room: u64) -> u64 {
        self.carry += events * self.parts;
        let whole = (self.carry / 10_000).min(room);
        self.carry -= whole * 10_000;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::example_run;
    use std::collections::HashSet;

    fn planner(events_per_request: u64, duplicates: u32, changed: u32) -> Planner {
        Planner::new(1, 1, events_per_request, Shares { duplicates, changed, invalid: 0 })
    }

    #[test]
    fn repeats_have_their_share_and_are_of_accepted_events_only() {
        let mut planner = planner(100, 200, 100);
        let first = planner.plan();
        assert_eq!((first.events(), first.duplicates.len()), (100, 0), "nothing is accepted yet");
        planner.accepted(&first);
        let (mut duplicates, mut changed) = (0, 0);
        for _ in 0..50 {
            let plan = planner.plan();
            assert_eq!(plan.events(), 100);
            let repeats: Vec<u64> = plan.duplicates.iter().chain(&plan.changed).copied().collect();
            assert!(repeats.iter().all(|number| first.fresh.contains(number)));
            assert_eq!(
                repeats.iter().collect::<HashSet<_>>().len(),
                repeats.len(),
                "no repeat twice in a request"
            );
            duplicates += plan.duplicates.len();
            changed += plan.changed.len();
        }
        assert_eq!((duplicates, changed), (100, 50));
    }

    #[test]
    fn shares_hold_for_requests_of_one_event() {
        let mut planner = planner(1, 200, 100);
        for _ in 0..10 {
            let plan = planner.plan_fresh(0, 1);
            planner.accepted(&plan);
        }
        let plans: Vec<RequestPlan> = (0..10_000).map(|_| planner.plan()).collect();
        assert!(plans.iter().all(|plan| plan.events() == 1));
        assert_eq!(plans.iter().filter(|plan| !plan.duplicates.is_empty()).count(), 200);
    }

    #[test]
    fn organizations_take_turns_and_repeat_their_own_events_only() {
        let shares = Shares { duplicates: 1_000, changed: 1_000, invalid: 1_000 };
        let mut planner = Planner::new(1, 2, 10, shares);
        let firsts = [planner.plan(), planner.plan()];
        assert_eq!(firsts.each_ref().map(|plan| plan.organization), [0, 1]);
        assert_eq!(firsts[0].fresh, firsts[1].fresh, "both have the same transaction ids");
        planner.accepted(&firsts[1]);
        let (a, b) = (planner.plan(), planner.plan());
        assert_eq!((a.duplicates.len(), a.changed.len(), a.invalid.clone()), (0, 0, 1..2));
        assert_eq!((b.duplicates.len(), b.changed.len(), b.invalid.clone()), (1, 1, 1..2));
        assert_eq!((a.events(), b.events()), (10, 10));
    }

    #[test]
    fn fresh_events_are_numbered_without_gaps_after_those_that_drain() {
        let mut planner = planner(10, 0, 0);
        let (a, b) = (planner.plan(), planner.plan());
        assert_eq!((a.fresh, b.fresh), (1_000..1_010, 1_010..1_020));
        assert_eq!(planner.plan_drain().fresh, 0..1_000);
    }

    #[test]
    fn the_body_holds_the_slots_in_order() {
        let run = example_run();
        let plan = RequestPlan {
            number: 3,
            organization: 0,
            fresh: 1_000..1_002,
            duplicates: vec![40],
            changed: vec![41],
            invalid: 7..8,
        };
        let body: serde_json::Value = serde_json::from_slice(&plan.body(&run)).unwrap();
        let ids: Vec<&str> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["transaction_id"].as_str().unwrap())
            .collect();
        let id = |number| run.name(EventId { organization: 0, number });
        assert_eq!(ids[..4], [1_000, 1_001, 40, 41].map(id));
        assert_eq!(ids[4..], [run.invalid_id(7)]);
        assert_eq!((plan.valid(), plan.events()), (4, 5));
    }

    #[test]
    fn remembered_requests_are_bounded() {
        let mut planner = planner(1, 0, 0);
        for _ in 0..=REMEMBERED_REQUESTS_MAX {
            let plan = planner.plan();
            planner.accepted(&plan);
        }
        assert_eq!(planner.organizations[0].accepted.len(), REMEMBERED_REQUESTS_MAX);
    }
}
