//! The state that all connections share: the planner, the ledger, and what was measured so far.

use crate::answer::{self, Answer};
use crate::args::OrganizationKey;
use crate::event::{EventId, Run};
use crate::group_sync::GroupSync;
use crate::http::{Client, Endpoint};
use crate::ledger::Ledger;
use crate::plan::{Planner, RequestPlan};
use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Request, Uri};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How many different rejection codes are counted apart.
const CODES_MAX: usize = 32;
/// How many different wrong answers are named.
const BROKEN_MAX: usize = 5;
/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// The longest wait that an answer may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// Single-threaded: every task of the generator runs on one thread, and none holds a borrow while it waits.
pub type Shared = Rc<RefCell<Traffic>>;

/// A request that is not settled, with the time it was due.
#[derive(Clone, Debug)]
pub struct Pending {
    pub plan: RequestPlan,
    pub due: Instant,
    /// When it was last sent.
    pub tried: Instant,
}

/// Events so far, repeats included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub acked: u64,
    pub rejected: u64,
    /// Attempts without an answer that settles them.
    pub unknown_attempts: u64,
}

/// The longest time without an accepted request: how a client sees an outage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    start: Option<Instant>,
    last: Option<Instant>,
    pub longest: Duration,
    /// How long after the start the longest one began.
    pub began: Duration,
}

impl Silence {
    /// Counts from now on; a request was accepted just before.
    pub fn start(&mut self, now: Instant) {
        *self = Self { start: Some(now), last: Some(now), ..Self::default() };
    }

    /// Ends the silence, if any, because of an accepted request or because nothing more is sent.
    pub fn end(&mut self, now: Instant) {
        let (Some(start), Some(last)) = (self.start, self.last) else { return };
        let silence = now.saturating_duration_since(last);
        if silence > self.longest {
            (self.longest, self.began) = (silence, last.saturating_duration_since(start));
        }
        self.last = Some(now);
    }
}

#[derive(Debug)]
pub struct Traffic {
    pub run: Rc<Run>,
    pub planner: Planner,
    pub ledger: Ledger,
    /// When the ledger has to be on the disk before a request is sent.
    pub sync: Option<GroupSync>,
    /// Microseconds from when a request was due until all of its events were answered for, over all attempts.
    pub latency: Histogram<u64>,
    pub tally: Tally,
    /// Requests with an unknown outcome.
    pub unresolved: Vec<Pending>,
    /// An event of the request that was accepted last, and when.
    pub newest_acked: Option<(EventId, Instant)>,
    pub silence: Silence,
    pub rejection_codes: BTreeMap<String, u64>,
    pub last_unknown: Option<String>,
    pub broken_answers: u64,
    pub broken_examples: Vec<String>,
}

impl Traffic {
    pub fn new(run: Rc<Run>, planner: Planner, ledger: Ledger) -> anyhow::Result<Self> {
        let latency_max = u64::try_from(LATENCY_MAX.as_micros())?;
        Ok(Self {
            run,
            planner,
            ledger,
            sync: None,
            latency: Histogram::new_with_bounds(1, latency_max, 3)?,
            tally: Tally::default(),
            unresolved: Vec::new(),
            newest_acked: None,
            silence: Silence::default(),
            rejection_codes: BTreeMap::new(),
            last_unknown: None,
            broken_answers: 0,
            broken_examples: Vec::new(),
        })
    }

    /// Writes a planned request to the ledger; only then may it be sent.
    pub fn begin(&mut self, plan: &RequestPlan) -> anyhow::Result<()> {
        self.ledger.sent(plan)?;
        self.tally.sent += plan.events();
        Ok(())
    }

    fn settle(&mut self, pending: Pending, answer: Answer, at: Instant) -> anyhow::Result<()> {
        match answer {
            Answer::Acked => {
                let plan = &pending.plan;
                self.ledger.acked(plan.number)?;
                self.tally.acked += plan.events();
                self.take_accepted(plan, at);
                self.record_latency(at.saturating_duration_since(pending.due));
            }
            Answer::PartlyRejected { slots, codes } => {
                let plan = &pending.plan;
                self.ledger.rejected(plan.number, Some(&slots))?;
                let rejected = u64::try_from(slots.len())?;
                self.tally.rejected += rejected;
                self.tally.acked += plan.events() - rejected;
                self.count_codes(codes);
                if slots.iter().all(|slot| *slot >= plan.valid()) {
                    self.take_accepted(plan, at);
                }
                self.record_latency(at.saturating_duration_since(pending.due));
            }
            Answer::Rejected { codes } => {
                self.ledger.rejected(pending.plan.number, None)?;
                self.tally.rejected += pending.plan.events();
                self.count_codes(codes);
            }
            Answer::Unknown { cause } => self.leave_unresolved(pending, cause)?,
            Answer::Broken { why } => {
                self.broken_answers += 1;
                if self.broken_examples.len() < BROKEN_MAX {
                    self.broken_examples.push(why.clone());
                }
                self.leave_unresolved(pending, why)?;
            }
        }
        Ok(())
    }

    /// Every valid event of the request was accepted.
    fn take_accepted(&mut self, plan: &RequestPlan, at: Instant) {
        self.planner.accepted(plan);
        let id = |number| EventId { organization: plan.organization, number };
        let first = plan.fresh.clone().next();
        self.newest_acked = first.map(|number| (id(number), at)).or(self.newest_acked);
        self.silence.end(at);
    }

    fn leave_unresolved(&mut self, pending: Pending, cause: String) -> anyhow::Result<()> {
        self.ledger.unknown(pending.plan.number, &cause)?;
        self.tally.unknown_attempts += 1;
        self.last_unknown = Some(cause);
        self.unresolved.push(pending);
        Ok(())
    }

    fn record_latency(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn count_codes(&mut self, codes: BTreeMap<String, u64>) {
        for (code, count) in codes {
            let known =
                self.rejection_codes.contains_key(&code) || self.rejection_codes.len() < CODES_MAX;
            *self
                .rejection_codes
                .entry(if known { code } else { "others".to_owned() })
                .or_default() += count;
        }
    }
}

/// Sends requests over a connection of its own.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    uri: Uri,
    host: HeaderValue,
    /// By organization.
    authorizations: Vec<HeaderValue>,
    request_timeout: Duration,
}

impl Sender {
    /// `keys` are in the order of the run's organizations.
    pub fn new(
        endpoint: Endpoint,
        keys: &[OrganizationKey],
        request_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let uri = format!("{}/v1/events", endpoint.path).parse()?;
        let host = HeaderValue::from_str(&endpoint.authority)?;
        let authorizations = keys.iter().map(authorization).collect::<anyhow::Result<_>>()?;
        Ok(Self { client: Client::new(endpoint), uri, host, authorizations, request_timeout })
    }

    /// Sends a request that is in the ledger, and settles it there. Returns the wait that the answer
    /// asks for before the next request, one second at most.
    pub async fn attempt(
        &mut self,
        traffic: &Shared,
        mut pending: Pending,
    ) -> anyhow::Result<Duration> {
        let run = Rc::clone(&traffic.borrow().run);
        let events = pending.plan.events();
        let sync = traffic.borrow().sync.clone();
        let lines = traffic.borrow().ledger.lines();
        if let Some(sync) = sync {
            sync.durable(lines).await?;
        }
        let body = Bytes::from(pending.plan.body(&run));
        let request = self.request(pending.plan.organization, body)?;
        let mut wait = Duration::ZERO;
        let answer = match timeout(self.request_timeout, self.client.exchange(request)).await {
            Ok(Ok(answered)) => {
                wait = answered.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                answer::read(answered.status, &answered.body, events)
            }
            Ok(Err(error)) => Answer::Unknown { cause: format!("{error:#}") },
            Err(_) => Answer::Unknown { cause: "timeout".to_owned() },
        };
        let now = Instant::now();
        pending.tried = now;
        traffic.borrow_mut().settle(pending, answer, now)?;
        Ok(wait)
    }

    fn request(&self, organization: u16, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let authorization = self.authorizations.get(usize::from(organization));
        Ok(Request::post(self.uri.clone())
            .header("host", self.host.clone())
            .header("authorization", authorization.context("an organization has a key")?)
            .header("content-type", HeaderValue::from_static("application/json"))
            .body(Full::new(body))?)
    }
}

fn authorization(key: &OrganizationKey) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.key.expose()))
        .context("the API key is not one line of text")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_found_wherever_it_is() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut silence = Silence::default();
        silence.end(at(5_000));
        silence.start(start);
        [100, 900, 1_000].into_iter().for_each(|ms| silence.end(at(ms)));
        let found = (silence.began, silence.longest);
        assert_eq!(found, (Duration::from_millis(100), Duration::from_millis(800)));
        silence.end(at(3_000));
        assert_eq!(silence.longest, Duration::from_millis(2_000), "the run ended in silence");
    }
}
