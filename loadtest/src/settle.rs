//! After the load: waits until the store has caught up.

use crate::clickhouse::ClickHouse;
use crate::event::{DRAIN_EVENTS, EventId, Run};
use crate::expectation::{Expectation, State};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL_EVERY: Duration = Duration::from_millis(250);
/// Counting all events of a run costs the engine more than a look at one customer.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long the rest of the last batch may take once the last request is visible; less if catching up
/// may take less.
pub const LAST_BATCH_LIMIT: Duration = Duration::from_secs(10);

/// How far the store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It shows as many events and conflicts as it should.
    CaughtUp,
    /// It shows the last request, so that everything before it has been consumed, but not everything.
    Drained,
    /// There may be more to come.
    Behind,
}

/// Waits until the store shows everything: for `limit`, or for [`LAST_BATCH_LIMIT`] after the last request is
/// visible. Errors of ClickHouse are waited out.
pub async fn settle(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    limit: Duration,
) -> Settled {
    let deadline = Instant::now() + limit;
    let drained =
        drain_was_acked(expectation) && drained(clickhouse, &expectation.run, deadline).await;
    // A batch is inserted table by table, and a store that lost something will never be complete.
    let deadline = if drained { Instant::now() + LAST_BATCH_LIMIT.min(limit) } else { deadline };
    if caught_up(clickhouse, expectation, deadline).await {
        Settled::CaughtUp
    } else if drained {
        Settled::Drained
    } else {
        Settled::Behind
    }
}

/// Waits until the events of the last request are visible; `false` when they are not by `deadline`.
///
/// Partitions are consumed in order, so that everything sent before has been consumed by then.
async fn drained(clickhouse: &mut ClickHouse, run: &Run, deadline: Instant) -> bool {
    let customer = run.customer_id(run.customers);
    let sql = include_str!("../queries/count_events_of_customer.sql");
    loop {
        let count = clickhouse.number(sql, &[("customer", &customer)]).await;
        if count.is_ok_and(|count| count >= DRAIN_EVENTS) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL_EVERY).await;
    }
}

/// Waits until the store has as many events and conflicts as it should, or until `deadline`.
async fn caught_up(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    deadline: Instant,
) -> bool {
    let prefix = expectation.run.customer_prefix();
    let conflicting = expectation.changed.values().filter(|copies| copies.min > 0).count();
    let expected = [expectation.counts.acked_fresh, u64::try_from(conflicting).unwrap_or(u64::MAX)];
    let queries = [
        include_str!("../queries/count_events_of_run.sql"),
        include_str!("../queries/count_conflicts_of_run.sql"),
    ];
    loop {
        let mut enough = true;
        for (sql, expected) in queries.into_iter().zip(expected) {
            let count = clickhouse.number(sql, &[("customers", &prefix)]).await;
            enough &= count.is_ok_and(|count| count >= expected);
        }
        if enough || Instant::now() >= deadline {
            return enough;
        }
        sleep(COUNT_EVERY).await;
    }
}

/// Whether the last request of the run was accepted, so that it can be waited for.
fn drain_was_acked(expectation: &Expectation) -> bool {
    let id = |number| EventId { organization: 0, number };
    (0..DRAIN_EVENTS).all(|number| expectation.state(id(number)) == State::Acked)
}
