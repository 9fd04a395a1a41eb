//! The state that all connections share: the planner, the ledger, and what was measured so far.

use crate::answer::{self, Answer};
use crate::event::Run;
use crate::http::{Client, Endpoint};
use crate::ledger::Ledger;
use crate::plan::{Planner, RequestPlan};
use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Request, Uri};
use service_kit::secret::Secret;
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

/// Single-threaded: every task of the generator runs on one thread, and none holds a borrow while it waits.
pub type Shared = Rc<RefCell<Traffic>>;

/// A request that is not settled, with the time it was due.
#[derive(Clone, Debug)]
pub struct Pending {
    pub plan: RequestPlan,
    pub due: Instant,
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

#[derive(Debug)]
pub struct Traffic {
    pub run: Rc<Run>,
    pub planner: Planner,
    pub ledger: Ledger,
    /// Microseconds from when a request was due until all of its events were answered for, over all attempts.
    pub latency: Histogram<u64>,
    pub tally: Tally,
    /// Requests with an unknown outcome.
    pub unresolved: Vec<Pending>,
    /// An event of the request that was accepted last, and when.
    pub newest_acked: Option<(u64, Instant)>,
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
            latency: Histogram::new_with_bounds(1, latency_max, 3)?,
            tally: Tally::default(),
            unresolved: Vec::new(),
            newest_acked: None,
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
        let Pending { plan, due } = pending;
        match answer {
            Answer::Acked => {
                self.ledger.acked(plan.number)?;
                self.planner.accepted(&plan);
                self.newest_acked =
                    plan.fresh.clone().next().map(|number| (number, at)).or(self.newest_acked);
                self.tally.acked += plan.events();
                self.record_latency(at.saturating_duration_since(due));
            }
            Answer::PartlyRejected { slots, codes } => {
                self.ledger.rejected(plan.number, Some(&slots))?;
                let rejected = u64::try_from(slots.len())?;
                self.tally.rejected += rejected;
                self.tally.acked += plan.events() - rejected;
                self.count_codes(codes);
                self.record_latency(at.saturating_duration_since(due));
            }
            Answer::Rejected { codes } => {
                self.ledger.rejected(plan.number, None)?;
                self.tally.rejected += plan.events();
                self.count_codes(codes);
            }
            Answer::Unknown { cause } => self.leave_unresolved(Pending { plan, due }, cause)?,
            Answer::Broken { why } => {
                self.broken_answers += 1;
                if self.broken_examples.len() < BROKEN_MAX {
                    self.broken_examples.push(why.clone());
                }
                self.leave_unresolved(Pending { plan, due }, why)?;
            }
        }
        Ok(())
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
    authorization: HeaderValue,
    request_timeout: Duration,
}

impl Sender {
    pub fn new(
        endpoint: Endpoint,
        api_key: &Secret,
        request_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", api_key.expose()))
            .context("the API key is not one line of text")?;
        authorization.set_sensitive(true);
        let uri = format!("{}/v1/events", endpoint.path).parse()?;
        let host = HeaderValue::from_str(&endpoint.authority)?;
        Ok(Self { client: Client::new(endpoint), uri, host, authorization, request_timeout })
    }

    /// Sends a request that is in the ledger, and settles it there.
    pub async fn attempt(&mut self, traffic: &Shared, pending: Pending) -> anyhow::Result<()> {
        let run = Rc::clone(&traffic.borrow().run);
        let events = pending.plan.events();
        let request = self.request(Bytes::from(pending.plan.body(&run)))?;
        let answer = match timeout(self.request_timeout, self.client.exchange(request)).await {
            Ok(Ok((status, body))) => answer::read(status, &body, events),
            Ok(Err(error)) => Answer::Unknown { cause: format!("{error:#}") },
            Err(_) => Answer::Unknown { cause: "timeout".to_owned() },
        };
        traffic.borrow_mut().settle(pending, answer, Instant::now())
    }

    fn request(&self, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        Ok(Request::post(self.uri.clone())
            .header("host", self.host.clone())
            .header("authorization", self.authorization.clone())
            .header("content-type", HeaderValue::from_static("application/json"))
            .body(Full::new(body))?)
    }
}
