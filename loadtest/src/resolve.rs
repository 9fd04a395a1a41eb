//! Unknown outcomes are retried, with the same ids and payloads, until they are settled.

use crate::traffic::{Pending, Sender, Shared};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// How long a request rests before it is sent again while the load is on.
const RETRY_ALONGSIDE_AFTER: Duration = Duration::from_secs(1);

/// Retries all unresolved requests over `senders` until none is left or `deadline` has passed.
/// Gives the senders back.
pub async fn resolve(
    traffic: &Shared,
    senders: Vec<Sender>,
    deadline: Instant,
) -> anyhow::Result<Vec<Sender>> {
    let mut tasks = JoinSet::new();
    for sender in senders {
        tasks.spawn_local(work(Shared::clone(traffic), sender, deadline));
    }
    let mut senders = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        senders.push(finished??);
    }
    Ok(senders)
}

async fn work(traffic: Shared, mut sender: Sender, deadline: Instant) -> anyhow::Result<Sender> {
    let mut delay = RETRY_DELAY_MIN;
    while Instant::now() < deadline {
        let Some(pending) = take(&traffic, Duration::ZERO)? else { return Ok(sender) };
        let number = pending.plan.number;
        let wait = sender.attempt(&traffic, pending).await?;
        let failed =
            traffic.borrow().unresolved.iter().any(|pending| pending.plan.number == number);
        delay = if failed { (delay * 2).min(RETRY_DELAY_MAX) } else { RETRY_DELAY_MIN };
        if failed {
            sleep(delay.max(wait)).await;
        }
    }
    Ok(sender)
}

/// Retries beside the load, as clients do, until `over` is set: what is still unresolved then is left.
pub async fn alongside(
    traffic: Shared,
    mut sender: Sender,
    over: Rc<Cell<bool>>,
) -> anyhow::Result<()> {
    while !over.get() {
        match take(&traffic, RETRY_ALONGSIDE_AFTER)? {
            Some(pending) => sleep(sender.attempt(&traffic, pending).await?).await,
            None => sleep(RETRY_DELAY_MIN).await,
        }
    }
    Ok(())
}

/// A request that was tried longest ago, and `rest` ago at least.
fn take(traffic: &Shared, rest: Duration) -> anyhow::Result<Option<Pending>> {
    let mut traffic = traffic.borrow_mut();
    let due = traffic.unresolved.first().is_some_and(|first| first.tried.elapsed() >= rest);
    if !due {
        return Ok(None);
    }
    let pending = traffic.unresolved.remove(0);
    traffic.ledger.retried(pending.plan.number)?;
    Ok(Some(pending))
}
