//! The open loop: requests start when they are due, whatever the answers to earlier ones do.

use crate::schedule::Schedule;
use crate::traffic::{Pending, Sender, Shared};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Requests that start later than this are counted as late: no connection was free.
const LATE: Duration = Duration::from_millis(10);

/// What became of the schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Punctuality {
    pub started: u64,
    pub late: u64,
    pub latest: Duration,
    /// Requests that were due but could not start before the overtime was over.
    pub never_started: u64,
    /// From the first due time to the last answer.
    pub took: Duration,
}

/// Sends every request of `schedule`, over `senders`; none starts more than `overtime` after the last is
/// due, and none once `end` says so.
pub async fn generate(
    traffic: &Shared,
    schedule: Schedule,
    senders: Vec<Sender>,
    overtime: Duration,
    end: &watch::Receiver<bool>,
) -> anyhow::Result<Punctuality> {
    let start = Instant::now();
    let loop_state = Rc::new(OpenLoop {
        schedule,
        start,
        close: start + schedule.due(schedule.requests()) + overtime,
        next: RefCell::new(0),
        punctuality: RefCell::new(Punctuality::default()),
    });
    let mut tasks = JoinSet::new();
    for sender in senders {
        let (traffic, end) = (Rc::clone(traffic), end.clone());
        tasks.spawn_local(work(traffic, Rc::clone(&loop_state), sender, end));
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }
    let mut punctuality = *loop_state.punctuality.borrow();
    if !*end.borrow() {
        punctuality.never_started = schedule.requests() - punctuality.started;
    }
    punctuality.took = start.elapsed();
    Ok(punctuality)
}

struct OpenLoop {
    schedule: Schedule,
    start: Instant,
    close: Instant,
    next: RefCell<u64>,
    punctuality: RefCell<Punctuality>,
}

impl OpenLoop {
    /// The due time of the next request that no connection has taken.
    fn claim(&self) -> Option<Instant> {
        let mut next = self.next.borrow_mut();
        if *next == self.schedule.requests() {
            return None;
        }
        let due = self.start + self.schedule.due(*next);
        *next += 1;
        Some(due)
    }

    /// Whether a request that is due may still start, and how late it does.
    fn start_request(&self, due: Instant) -> bool {
        let now = Instant::now();
        if now > self.close {
            return false;
        }
        let lateness = now.saturating_duration_since(due);
        let mut punctuality = self.punctuality.borrow_mut();
        punctuality.started += 1;
        punctuality.late += u64::from(lateness > LATE);
        punctuality.latest = punctuality.latest.max(lateness);
        true
    }
}

/// One connection: takes the next request whenever it is free.
async fn work(
    traffic: Shared,
    open_loop: Rc<OpenLoop>,
    mut sender: Sender,
    mut end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    while let Some(due) = open_loop.claim() {
        match timeout_at(due, end.wait_for(|ended| *ended)).await {
            Ok(Ok(_)) => return Ok(()),
            // Nobody is left who could end the load early.
            Ok(Err(_)) => sleep_until(due).await,
            Err(_) => {}
        }
        if !open_loop.start_request(due) {
            return Ok(());
        }
        let plan = {
            let mut traffic = traffic.borrow_mut();
            let plan = traffic.planner.plan();
            traffic.begin(&plan)?;
            plan
        };
        let wait = sender.attempt(&traffic, Pending { plan, due, tried: due }).await?;
        if !wait.is_zero() {
            // What is due meanwhile starts late, which its latency includes.
            sleep(wait).await;
        }
    }
    Ok(())
}
