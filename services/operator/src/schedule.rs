//! Reconciliation as a job: the last period, again and again.

use crate::config::ReconcileArgs;
use crate::engines::{self, Engines};
use crate::metrics::{self, Outcome};
use crate::reconcile::report::Report;
use crate::reconcile::{Request, reconcile_watched};
use crate::{output, reconcile as reconciling};
use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use service_kit::admin::{self, ProbeSet};
use service_kit::clock::{Clock, SystemClock};
use service_kit::http_server::{self, HttpLimits};
use service_kit::lifecycle::{Lifecycle, chain};
use service_kit::listen::bind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use usage_store::config::SCAN_TIMEOUT;

/// Longest wait for a run that is under way when the process is to end: it changes nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Intervals in which no run has ended or moved on after which the process counts as stuck.
const STUCK_INTERVALS: u32 = 3;
/// The least time that a run may take for one step, such as a partition of many records: twice the longest
/// silence of a query.
const STEP_MAX: Duration = Duration::from_secs(2 * SCAN_TIMEOUT.as_secs());

/// What to prove of a period.
pub fn request(args: &ReconcileArgs, period: std::ops::Range<DateTime<Utc>>) -> Request {
    Request {
        period,
        organization: args.organization.clone(),
        settle: args.settle,
        horizon: args.dedup_horizon,
        memory: args.memory,
        examples: args.examples,
    }
}

/// Runs until the process is asked to end.
pub async fn serve(args: ReconcileArgs, every: Duration) -> anyhow::Result<ExitCode> {
    metrics::register();
    let listener =
        bind(args.admin_listen, args.address_file.as_deref()).await.with_context(|| {
            format!("the endpoint for operators cannot listen on {}", args.admin_listen)
        })?;
    let health = Health::new(every);
    let lifecycle = Lifecycle::new();
    let serve = http_server::serve(
        listener,
        admin::router(health.probes()),
        HttpLimits::default(),
        lifecycle.shutdown_token(),
    );
    lifecycle.spawn("admin", serve);
    let shutdown = lifecycle.shutdown_token();
    lifecycle.spawn("reconcile", async move {
        repeat(&args, every, &health, &shutdown).await;
        Ok::<_, std::io::Error>(())
    });
    Ok(lifecycle.run(SHUTDOWN_LIMIT).await)
}

async fn repeat(
    args: &ReconcileArgs,
    every: Duration,
    health: &Health,
    shutdown: &CancellationToken,
) {
    loop {
        let begun = Instant::now();
        tokio::select! {
            ended = run(args, SystemClock.now(), health) => health.ended(ended),
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(every.saturating_sub(begun.elapsed())) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One run; `Err` with the reason when it did not pass.
async fn run(args: &ReconcileArgs, now: DateTime<Utc>, health: &Health) -> Result<(), String> {
    let outcome = match engines::open(&args.engines).await {
        Ok(mut engines) => prove(args, &mut engines, now, health).await,
        Err(error) => Err(chain(error.as_ref())),
    };
    let report = match outcome {
        Ok(report) => report,
        Err(reason) => {
            metrics::ran(Outcome::NotChecked, now.timestamp());
            tracing::warn!(reason, "reconciliation could not be done");
            return Err(format!("could not be done: {reason}"));
        }
    };
    let difference = difference(&report);
    metrics::difference(difference);
    let failed: Vec<_> =
        report.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect();
    metrics::ran(if report.passed { Outcome::Passed } else { Outcome::Failed }, now.timestamp());
    let (total, failed) = (&report.total, failed.join(","));
    if report.passed {
        tracing::info!(
            from = report.from,
            to = report.to,
            accepted = total.accepted,
            billed = total.billed,
            repeats = total.repeats,
            conflicts = total.conflicts,
            parked = total.parked,
            reused_ids = report.reused_beyond_horizon.count,
            "reconciliation passed"
        );
        return Ok(());
    }
    tracing::error!(
        from = report.from,
        to = report.to,
        accepted = total.accepted,
        billed = total.billed,
        repeats = total.repeats,
        conflicts = total.conflicts,
        parked = total.parked,
        difference,
        failed,
        "reconciliation failed: run `tallymark reconcile` over this period for what to do"
    );
    Err(format!("the period from {} to {} failed: {failed}", report.from, report.to))
}

async fn prove(
    args: &ReconcileArgs,
    engines: &mut Engines,
    now: DateTime<Utc>,
    health: &Health,
) -> Result<Report, String> {
    let period = last_period(now, args.settle, args.period);
    let moved_on = || health.moved_on();
    let report = reconcile_watched(engines, &request(args, period), now, &moved_on).await;
    let report = report.map_err(|error: reconciling::NotChecked| chain(&error))?;
    if let Some(target) = &args.json {
        write_report(target, &report);
    }
    Ok(report)
}

/// Keeps the report as a file. What was proved holds also when the file cannot be written.
fn write_report(target: &Path, report: &Report) {
    if let Err(error) = output::write_json(target, report) {
        let (file, error) = (target.display().to_string(), chain(&error));
        tracing::error!(file, error, "the report cannot be written");
    }
}

/// The settled period that ends last, at a full minute.
fn last_period(
    now: DateTime<Utc>,
    settle: Duration,
    length: Duration,
) -> std::ops::Range<DateTime<Utc>> {
    let settled = now - TimeDelta::from_std(settle).unwrap_or(TimeDelta::zero());
    let minute = settled.timestamp().div_euclid(60) * 60;
    let end = DateTime::from_timestamp(minute, 0).unwrap_or(settled);
    end - TimeDelta::from_std(length).unwrap_or(TimeDelta::zero())..end
}

/// What is missing and what is too much, added up.
fn difference(report: &Report) -> i64 {
    let absolute = |line: &crate::reconcile::report::LineReport| {
        line.difference.parse::<i64>().map_or(i64::MAX, i64::saturating_abs)
    };
    report.lines.iter().map(absolute).fold(0, i64::saturating_add)
}

/// What the probes answer from.
#[derive(Clone, Debug)]
struct Health {
    every: Duration,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug)]
struct Last {
    moved_on: Instant,
    outcome: Result<(), String>,
}

impl Health {
    fn new(every: Duration) -> Self {
        let outcome = Err("no run has ended yet".to_owned());
        let last = Last { moved_on: Instant::now(), outcome };
        Self { every, last: Arc::new(Mutex::new(last)) }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run is under way: a long one is none that is stuck.
    fn moved_on(&self) {
        self.last().moved_on = Instant::now();
    }

    fn ended(&self, outcome: Result<(), String>) {
        *self.last() = Last { moved_on: Instant::now(), outcome };
    }

    fn probes(&self) -> ProbeSet {
        let (live, ready) = (self.clone(), self.clone());
        ProbeSet { live: Arc::new(move || live.live()), ready: Arc::new(move || ready.ready()) }
    }

    fn live(&self) -> Result<(), String> {
        let silent = self.last().moved_on.elapsed();
        if silent <= stuck_after(self.every) {
            return Ok(());
        }
        Err(format!("no run has ended or moved on for {} s", silent.as_secs()))
    }

    fn ready(&self) -> Result<(), String> {
        self.last().outcome.clone()
    }
}

fn stuck_after(every: Duration) -> Duration {
    every.saturating_mul(STUCK_INTERVALS).max(STEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_is_settled_and_ends_at_a_full_minute() {
        let now = "2026-11-21T12:07:59Z".parse().unwrap();
        let period = last_period(now, Duration::from_secs(300), Duration::from_secs(3600));
        assert_eq!(period.start.to_rfc3339(), "2026-11-21T11:02:00+00:00");
        assert_eq!(period.end.to_rfc3339(), "2026-11-21T12:02:00+00:00");
    }

    #[test]
    fn the_probes_tell_of_the_last_run() {
        let health = Health::new(Duration::from_secs(3600));
        assert!(health.live().is_ok() && health.ready().is_err());
        health.ended(Ok(()));
        assert!(health.live().is_ok() && health.ready().is_ok());
        health.ended(Err("it failed".to_owned()));
        assert_eq!(health.ready(), Err("it failed".to_owned()));
        health.moved_on();
        assert_eq!(health.ready(), Err("it failed".to_owned()), "the next run has not ended");
    }

    #[test]
    fn a_run_may_take_longer_than_its_interval() {
        assert_eq!(stuck_after(Duration::from_secs(60)), Duration::from_secs(4 * 3600));
        assert_eq!(stuck_after(Duration::from_secs(7200)), Duration::from_secs(6 * 3600));
    }
}
