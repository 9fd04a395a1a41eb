//! Which events a request carries: fresh ones, repeats of accepted ones, and repeats that lie.

use crate::event::{DRAIN_EVENTS, Run, mix};
use std::ops::Range;

/// How many accepted requests repeats are drawn from; beyond it, new ones replace old ones at random.
const REMEMBERED_REQUESTS_MAX: usize = 65_536;
/// Repeats are drawn anew when one is in the request already; after so many attempts a fresh event is sent.
const DRAWS_MAX: u32 = 8;

/// One request, small enough to keep until its outcome is known; the body is written again for a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPlan {
    /// Position among the requests of the run, from zero.
    pub number: u64,
    /// Numbers of the events sent for the first time.
    pub fresh: Range<u64>,
    /// Numbers of accepted events that are sent again as they were.
    pub duplicates: Vec<u64>,
    /// Numbers of accepted events that are sent again with another timestamp.
    pub restamped: Vec<u64>,
}

/// The event at one position of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Fresh(u64),
    Duplicate(u64),
    Restamped(u64),
}

impl RequestPlan {
    pub fn events(&self) -> u64 {
        let repeats = self.duplicates.len() + self.restamped.len();
        self.fresh.end - self.fresh.start + u64::try_from(repeats).expect("a request is bounded")
    }

    /// The events in the order they are sent.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let fresh = self.fresh.clone().map(Slot::Fresh);
        let duplicates = self.duplicates.iter().copied().map(Slot::Duplicate);
        fresh.chain(duplicates).chain(self.restamped.iter().copied().map(Slot::Restamped))
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
                Slot::Fresh(number) | Slot::Duplicate(number) => {
                    run.write_json(number, false, &mut body);
                }
                Slot::Restamped(number) => run.write_json(number, true, &mut body),
            }
        }
        body.extend_from_slice(b"]}");
        body
    }
}

/// Plans request after request.
#[derive(Debug)]
pub struct Planner {
    events_per_request: u64,
    duplicates: Share,
    restamped: Share,
    next_request: u64,
    next_event: u64,
    noise: u64,
    accepted: Vec<(u64, u64)>,
}

impl Planner {
    /// The shares are in parts of 10,000.
    pub fn new(seed: u64, events_per_request: u64, duplicates: u32, restamped: u32) -> Self {
        Self {
            events_per_request,
            duplicates: Share { parts: duplicates.into(), carry: 0 },
            restamped: Share { parts: restamped.into(), carry: 0 },
            next_request: 0,
            next_event: DRAIN_EVENTS,
            noise: mix(!seed),
            accepted: Vec::new(),
        }
    }

    pub fn plan(&mut self) -> RequestPlan {
        let events = self.events_per_request;
        let duplicates = self.duplicates.take(events, events);
        let restamped = self.restamped.take(events, events - duplicates);
        let mut drawn = self.draw(duplicates + restamped);
        let duplicates = usize::try_from(duplicates).expect("bounded by the request");
        let restamped = drawn.split_off(drawn.len().min(duplicates));
        let repeats = u64::try_from(drawn.len() + restamped.len()).expect("bounded by the request");
        let fresh = self.take_fresh(events - repeats);
        self.number(fresh, drawn, restamped)
    }

    /// A request of fresh events only.
    pub fn plan_fresh(&mut self, events: u64) -> RequestPlan {
        let fresh = self.take_fresh(events);
        self.number(fresh, Vec::new(), Vec::new())
    }

    /// The last request of a run; see [`DRAIN_EVENTS`].
    pub fn plan_drain(&mut self) -> RequestPlan {
        self.number(0..DRAIN_EVENTS, Vec::new(), Vec::new())
    }

    /// Every event of `plan` was accepted, so copies of them may be sent from now on.
    ///
    /// Not before: the first copy in the log is the one that counts, and only an accepted event is
    /// known to be in it.
    pub fn accepted(&mut self, plan: &RequestPlan) {
        if plan.fresh.is_empty() {
            return;
        }
        let entry = (plan.fresh.start, plan.fresh.end);
        if self.accepted.len() < REMEMBERED_REQUESTS_MAX {
            self.accepted.push(entry);
        } else {
            let place = self.random(REMEMBERED_REQUESTS_MAX);
            self.accepted[place] = entry;
        }
    }

    fn number(
        &mut self,
        fresh: Range<u64>,
        duplicates: Vec<u64>,
        restamped: Vec<u64>,
    ) -> RequestPlan {
        let number = self.next_request;
        self.next_request += 1;
        RequestPlan { number, fresh, duplicates, restamped }
    }

    fn take_fresh(&mut self, events: u64) -> Range<u64> {
        let start = self.next_event;
        self.next_event += events;
        start..self.next_event
    }

    /// Up to `count` different accepted events. Different, because a repeat within one request is
    /// refused or answered `duplicate` by the API and never reaches the log.
    fn draw(&mut self, count: u64) -> Vec<u64> {
        let mut drawn = Vec::new();
        if self.accepted.is_empty() {
            return drawn;
        }
        for _ in 0..count {
            for _ in 0..DRAWS_MAX {
                let place = self.random(self.accepted.len());
                let (start, end) = self.accepted[place];
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

    #[test]
    fn repeats_have_their_share_and_are_of_accepted_events_only() {
        let mut planner = Planner::new(1, 100, 200, 100);
        let first = planner.plan();
        assert_eq!((first.events(), first.duplicates.len()), (100, 0), "nothing is accepted yet");
        planner.accepted(&first);
        let (mut duplicates, mut restamped) = (0, 0);
        for _ in 0..50 {
            let plan = planner.plan();
            assert_eq!(plan.events(), 100);
            let repeats: Vec<u64> =
                plan.duplicates.iter().chain(&plan.restamped).copied().collect();
            assert!(repeats.iter().all(|number| first.fresh.contains(number)));
            assert_eq!(
                repeats.iter().collect::<HashSet<_>>().len(),
                repeats.len(),
                "no repeat twice in a request"
            );
            duplicates += plan.duplicates.len();
            restamped += plan.restamped.len();
        }
        assert_eq!((duplicates, restamped), (100, 50));
    }

    #[test]
    fn shares_hold_for_requests_of_one_event() {
        let mut planner = Planner::new(1, 1, 200, 100);
        for _ in 0..10 {
            let plan = planner.plan_fresh(1);
            planner.accepted(&plan);
        }
        let plans: Vec<RequestPlan> = (0..10_000).map(|_| planner.plan()).collect();
        assert!(plans.iter().all(|plan| plan.events() == 1));
        assert_eq!(plans.iter().filter(|plan| !plan.duplicates.is_empty()).count(), 200);
    }

    #[test]
    fn fresh_events_are_numbered_without_gaps_after_those_that_drain() {
        let mut planner = Planner::new(1, 10, 0, 0);
        let (a, b) = (planner.plan(), planner.plan());
        assert_eq!((a.fresh, b.fresh), (1_000..1_010, 1_010..1_020));
        assert_eq!(planner.plan_drain().fresh, 0..1_000);
    }

    #[test]
    fn the_body_holds_the_slots_in_order() {
        let run = example_run();
        let plan = RequestPlan {
            number: 3,
            fresh: 1_000..1_002,
            duplicates: vec![40],
            restamped: vec![41],
        };
        let body: serde_json::Value = serde_json::from_slice(&plan.body(&run)).unwrap();
        let ids: Vec<&str> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["transaction_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, [1_000, 1_001, 40, 41].map(|number| run.transaction_id(number)));
    }

    #[test]
    fn remembered_requests_are_bounded() {
        let mut planner = Planner::new(1, 1, 0, 0);
        for _ in 0..=REMEMBERED_REQUESTS_MAX {
            let plan = planner.plan();
            planner.accepted(&plan);
        }
        assert_eq!(planner.accepted.len(), REMEMBERED_REQUESTS_MAX);
    }
}
