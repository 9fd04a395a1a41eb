//! Unknown outcomes are retried, with the same ids and payloads, until they are settled.

use crate::traffic::{Pending, Sender, Shared};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

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
        let Some(pending) = take(&traffic)? else { return Ok(sender) };
        let number = pending.plan.number;
        sender.attempt(&traffic, pending).await?;
        let failed =
            traffic.borrow().unresolved.iter().any(|pending| pending.plan.number == number);
        delay = if failed { (delay * 2).min(RETRY_DELAY_MAX) } else { RETRY_DELAY_MIN };
        if failed {
            sleep(delay).await;
        }
    }
    Ok(sender)
}

/// The request that has waited longest.
fn take(traffic: &Shared) -> anyhow::Result<Option<Pending>> {
    let mut traffic = traffic.borrow_mut();
    if traffic.unresolved.is_empty() {
        return Ok(None);
    }
    let pending = traffic.unresolved.remove(0);
    traffic.ledger.retried(pending.plan.number)?;
    Ok(Some(pending))
}
