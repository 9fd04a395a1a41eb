//! Asks the store everything, and has it compared with the ledger.

use crate::args::JudgeArgs;
use crate::audit::{self, Produced, RangeRow, TableCounts};
use crate::bounds::Bounds;
use crate::checker::{Checker, EventRow, SetHashRow, Terms};
use crate::clickhouse::{ClickHouse, columns, nullable, unescaped};
use crate::expectation::Expectation;
use crate::settle::{LAST_BATCH_LIMIT, Settled};
use crate::totals::{Period, TotalRow};
use crate::verdict::{Problem, Verdict};
use anyhow::Context;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After this wait the whole check is begun anew when the engine failed in the middle of it.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Reads everything of the run from the store and compares it with the ledger. Errors of ClickHouse are
/// waited out for as long as catching up may take.
///
/// # Errors
/// When the store cannot be read, so that there is no verdict.
pub async fn judge(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    args: &JudgeArgs,
    settled: Settled,
) -> anyhow::Result<Verdict> {
    let terms = Terms {
        drained: settled != Settled::Behind,
        log_may_duplicate: args.log_may_duplicate,
        refusals_allowed: args.allow_refusals,
    };
    let deadline = Instant::now() + args.catch_up_within;
    let mut verdict = loop {
        match check(clickhouse, expectation, args, terms).await {
            Err(_) if Instant::now() < deadline => sleep(RETRY_EVERY).await,
            outcome => break outcome.context("reading the store for the verdict")?,
        }
    };
    add_audit(clickhouse, expectation, args, &mut verdict, deadline).await?;
    if settled == Settled::Behind {
        let limit = humantime::format_duration(args.catch_up_within);
        verdict.add(Problem::NotCaughtUp, || format!("not everything was visible within {limit}"));
    }
    Ok(verdict)
}

async fn check(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    args: &JudgeArgs,
    terms: Terms,
) -> anyhow::Result<Verdict> {
    // Of everything in the store, if nobody else wrote there.
    let customers = if args.exclusive { String::new() } else { expectation.run.customer_prefix() };
    let customers = [("customers", customers.as_str())];
    let mut checker = Checker::new(expectation, terms);
    let sql = include_str!("../queries/select_events_of_run.sql");
    clickhouse
        .rows(sql, &customers, |row| {
            checker.event(event_row(row)?);
            Ok(())
        })
        .await?;
    checker.end_events();
    for period in Period::ALL {
        let sql = match period {
            Period::ViewHour => include_str!("../queries/select_view_hours_of_run.sql"),
            Period::Hour => include_str!("../queries/select_hours_of_run.sql"),
            Period::KolkataDay => include_str!("../queries/select_kolkata_days_of_run.sql"),
        };
        let mut totals = checker.totals(period);
        let total = |row: &str| {
            checker.total(&mut totals, total_row(row)?);
            Ok(())
        };
        clickhouse.rows(sql, &customers, total).await?;
        checker.end_totals(&totals);
    }
    let mut hashes = Vec::new();
    let sql = include_str!("../queries/select_set_hashes_of_run.sql");
    clickhouse
        .rows(sql, &customers, |row| {
            hashes.push(row.to_owned());
            Ok(())
        })
        .await?;
    let hashes: Vec<SetHashRow<'_>> =
        hashes.iter().map(|row| set_hash_row(row)).collect::<Result<_, _>>()?;
    checker.set_hashes(&hashes);
    let sql = include_str!("../queries/select_conflicts_of_run.sql");
    clickhouse
        .rows(sql, &customers, |row| {
            checker.conflict(event_row(row)?);
            Ok(())
        })
        .await?;
    let mut verdict = checker.finish();
    let sql = include_str!("../queries/count_physical_rows_of_run.sql");
    verdict.store.physical_rows = clickhouse.number(sql, &customers).await?;
    Ok(verdict)
}

/// The audit row of a batch is inserted last, so that it may follow the rows it tells of by a moment.
async fn add_audit(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    args: &JudgeArgs,
    verdict: &mut Verdict,
    deadline: Instant,
) -> anyhow::Result<()> {
    let settled = Instant::now() + LAST_BATCH_LIMIT.min(args.catch_up_within);
    loop {
        let mut audited = Verdict::default();
        match check_audit(clickhouse, expectation, args, &mut audited).await {
            Ok(()) if audited.passed() || Instant::now() >= settled => {
                verdict.findings.append(&mut audited.findings);
                verdict.store.audit = audited.store.audit;
                return Ok(());
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context("reading the audit for the verdict"));
            }
            Ok(()) | Err(_) => sleep(RETRY_EVERY).await,
        }
    }
}

async fn check_audit(
    clickhouse: &mut ClickHouse,
    expectation: &Expectation,
    args: &JudgeArgs,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mut ranges = Vec::new();
    let sql = include_str!("../queries/select_audit.sql");
    clickhouse
        .rows(sql, &[], |row| {
            ranges.push(range_row(row)?);
            Ok(())
        })
        .await?;
    let mut audited = audit::add_up(ranges, args.exclusive, verdict);
    let mut tables = TableCounts::default();
    let sql = include_str!("../queries/count_tables.sql");
    clickhouse
        .rows(sql, &[], |row| {
            tables = table_counts(row)?;
            Ok(())
        })
        .await?;
    if args.exclusive {
        let records = expectation.records.plus(args.expect_foreign_records);
        let produced = Produced {
            records: if args.log_may_duplicate { records.or_more() } else { records },
            dead_letters: args.expect_dead_letters.unwrap_or(Bounds::exactly(0)),
        };
        audited.balance(tables, produced, verdict);
    } else {
        audited.tables = tables;
        if let Some(expected) = args.expect_dead_letters
            && !expected.contains(tables.dead_letters)
        {
            let example = || format!("{}, expected {expected}", tables.dead_letters);
            verdict.add(Problem::DeadLetters, example);
        }
    }
    verdict.store.audit = audited;
    Ok(())
}

fn event_row(row: &str) -> anyhow::Result<EventRow<'_>> {
    let [
        organization,
        scope,
        transaction_id,
        code,
        customer,
        subscription,
        timestamp,
        value,
        properties,
    ] = columns(row)?;
    Ok(EventRow {
        organization,
        scope,
        transaction_id,
        code,
        customer,
        subscription,
        timestamp_ms: timestamp.parse()?,
        value: nullable(value),
        properties: unescaped(properties)?,
    })
}

fn total_row(row: &str) -> anyhow::Result<TotalRow<'_>> {
    let [organization, code, customer, subscription, start, events, sum] = columns(row)?;
    let (start, events) = (start.parse()?, events.parse()?);
    Ok(TotalRow { organization, code, customer, subscription, start, events, sum })
}

fn set_hash_row(row: &str) -> anyhow::Result<SetHashRow<'_>> {
    let [organization, rows, hash] = columns(row)?;
    Ok(SetHashRow { organization, rows: rows.parse()?, hash })
}

fn range_row(row: &str) -> anyhow::Result<RangeRow> {
    let [topic, epoch, partition, first, last, records, outcomes @ ..] = columns::<10>(row)?;
    let mut counts = [0; 4];
    for (count, text) in counts.iter_mut().zip(outcomes) {
        *count = text.parse()?;
    }
    Ok(RangeRow {
        topic: topic.to_owned(),
        epoch: epoch.parse()?,
        partition: partition.parse()?,
        first: first.parse()?,
        last: last.parse()?,
        records: records.parse()?,
        outcomes: counts,
    })
}

fn table_counts(row: &str) -> anyhow::Result<TableCounts> {
    let [billable_rows, conflicts, dead_letters] = columns(row)?;
    Ok(TableCounts {
        billable_rows: billable_rows.parse()?,
        conflicts: conflicts.parse()?,
        dead_letters: dead_letters.parse()?,
    })
}
