//! After the run: waits until the store has caught up, then asks it everything.

use crate::clickhouse::{ClickHouse, columns, nullable};
use crate::event::{DRAIN_EVENTS, Run};
use crate::expectation::{Expectation, State};
use crate::verdict::{Checker, ConflictRow, EventRow, HourRow, Verdict};
use anyhow::Context;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL_EVERY: Duration = Duration::from_millis(250);
/// Counting all events of a run costs the engine more than a look at one customer.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often the whole check is begun anew when the engine fails in the middle of it.
const CHECKS_MAX: u32 = 5;

/// Waits until the events of the last request are visible; `false` when they are not by `deadline`.
///
/// Partitions are consumed in order, so that everything sent before has been consumed by then.
pub async fn drained(clickhouse: &mut ClickHouse, run: &Run, deadline: Instant) -> bool {
    let customer = run.customer_id(run.customers);
    let sql = include_str!("../queries/count_events_of_customer.sql");
    while Instant::now() < deadline {
        if clickhouse
            .number(sql, &[("customer", &customer)])
            .await
            .is_ok_and(|count| count >= DRAIN_EVENTS)
        {
            return true;
        }
        sleep(POLL_EVERY).await;
    }
    false
}

/// Waits until the store has as many events and conflicts as it should, or until `deadline`.
pub async fn caught_up(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    deadline: Instant,
) -> bool {
    let prefix = expectation.run.transaction_prefix();
    let conflicting = expectation.restamped.values().filter(|copies| copies.min > 0).count();
    let expected = [expectation.counts.acked_fresh, u64::try_from(conflicting).unwrap_or(u64::MAX)];
    let queries = [
        include_str!("../queries/count_events_of_run.sql"),
        include_str!("../queries/count_conflicts_of_run.sql"),
    ];
    loop {
        let mut enough = true;
        for (sql, expected) in queries.into_iter().zip(expected) {
            enough &= clickhouse
                .number(sql, &[("transactions", &prefix)])
                .await
                .is_ok_and(|count| count >= expected);
        }
        if enough || Instant::now() >= deadline {
            return enough;
        }
        sleep(COUNT_EVERY).await;
    }
}

/// Reads everything of the run from the store and compares it with the ledger.
pub async fn judge(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
) -> anyhow::Result<Verdict> {
    let mut attempt = 1;
    loop {
        match check(clickhouse, expectation).await {
            Err(_) if attempt < CHECKS_MAX => {
                attempt += 1;
                sleep(COUNT_EVERY).await;
            }
            outcome => return outcome.context("reading the store for the verdict"),
        }
    }
}

async fn check(clickhouse: &mut ClickHouse, expectation: &Expectation) -> anyhow::Result<Verdict> {
    let mut checker = Checker::new(expectation);
    let transactions = expectation.run.transaction_prefix();
    let customers = expectation.run.customer_prefix();
    clickhouse
        .rows(
            include_str!("../queries/select_events_of_run.sql"),
            &[("transactions", &transactions)],
            |row| {
                let [organization, scope, transaction_id, code, customer, timestamp, value] =
                    columns(row)?;
                let timestamp_ms = timestamp.parse()?;
                checker.event(EventRow {
                    organization,
                    scope,
                    transaction_id,
                    code,
                    customer,
                    timestamp_ms,
                    value: nullable(value),
                });
                Ok(())
            },
        )
        .await?;
    checker.begin_hours();
    clickhouse
        .rows(
            include_str!("../queries/select_hours_of_run.sql"),
            &[("customers", &customers)],
            |row| {
                let [code, customer, hour, events, sum] = columns(row)?;
                checker.hour(HourRow {
                    code,
                    customer,
                    hour: hour.parse()?,
                    events: events.parse()?,
                    sum,
                });
                Ok(())
            },
        )
        .await?;
    clickhouse
        .rows(
            include_str!("../queries/select_conflicts_of_run.sql"),
            &[("transactions", &transactions)],
            |row| {
                let [transaction_id, timestamp] = columns(row)?;
                checker.conflict(ConflictRow { transaction_id, timestamp_ms: timestamp.parse()? });
                Ok(())
            },
        )
        .await?;
    Ok(checker.finish())
}

/// Whether the last request of the run was accepted, so that it can be waited for.
pub fn drain_was_acked(expectation: &Expectation) -> bool {
    (0..DRAIN_EVENTS).all(|number| expectation.state(number) == State::Acked)
}
