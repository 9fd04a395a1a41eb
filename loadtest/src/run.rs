//! One run from beginning to end.

use crate::args::{Args, CheckArgs, JudgeArgs, NamedProcess, OrganizationKey};
use crate::clickhouse::ClickHouse;
use crate::event::Run;
use crate::expectation::Expectation;
use crate::generate::{Punctuality, generate};
use crate::http::Endpoint;
use crate::judge::judge;
use crate::lag::{self, Lag};
use crate::ledger::{FORMAT, Ledger};
use crate::plan::{Planner, RequestPlan, Shares};
use crate::processes::{Processes, Usage};
use crate::progress::Progress;
use crate::report::{Quantiles, Report};
use crate::resolve::{alongside, resolve};
use crate::schedule::Schedule;
use crate::settle::settle;
use crate::traffic::{Pending, Sender, Shared, Traffic};
use crate::verdict::Problem;
use anyhow::{Context, bail};
use service_kit::clock::{Clock, SystemClock};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

/// What shells report of a process that SIGTERM ended.
const ENDED_BY_SIGTERM: i32 = 128 + 15;
/// One invalid event is sent for so many edge cases.
const INVALID_PART: u32 = 4;
/// How long the first request may take to be accepted.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(15);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How long the last markers may take to be seen once everything is visible.
const LAST_SAMPLES_LIMIT: Duration = Duration::from_secs(2);

/// Sends, waits, judges. SIGTERM ends the load early, and the rest goes on.
///
/// # Errors
/// When there is nothing to judge: the API refuses the first request, ClickHouse can't be read, or
/// the ledger can't be written.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let end = end_on_sigterm()?;
    let schedule = Schedule::new(args.rate, args.events_per_request, args.duration);
    let keys = args.credentials();
    let traffic = begin(args, &keys)?;
    let senders = send_first(&traffic, senders(args, &keys)?).await?;
    let watch = Watch::start(args, &traffic, schedule)?;

    let punctuality = send_load(args, &traffic, schedule, senders, &end).await?;
    let acked_under_load = traffic.borrow().tally.acked;
    traffic.borrow().ledger.sync()?;

    watch.say("waiting for the outcome of every request");
    let deadline = Instant::now() + args.resolve_within;
    let senders = resolve(&traffic, self::senders(args, &keys)?, deadline).await?;
    traffic.borrow_mut().silence.end(Instant::now());
    send_last(&traffic, senders, deadline).await?;
    traffic.borrow().ledger.sync()?;

    let last_ack = Instant::now();
    let expectation = Expectation::read(traffic.borrow().ledger.path())?;
    let mut clickhouse = clickhouse(&args.judge)?;
    watch.say("waiting for the store to show everything");
    let settled = settle(&mut clickhouse, &expectation, args.judge.catch_up_within).await;
    let caught_up = last_ack.elapsed();
    let processes = watch.stop_sampling().await;

    watch.say("comparing the store with the ledger");
    let verdict = judge(&mut clickhouse, &expectation, &args.judge, settled).await?;
    watch.progress.borrow().finish();
    let report = Report::new(&expectation, &args.judge, verdict).caught_up(settled, caught_up);
    let report = with_traffic(report, args, &traffic.borrow());
    let report = with_load(report, acked_under_load, punctuality, &watch.lag.borrow());
    Ok(Report { processes, ..report })
}

/// Judges an earlier run by its ledger.
///
/// # Errors
/// When the ledger or the store can't be read.
pub async fn check(args: &CheckArgs) -> anyhow::Result<Report> {
    let began = Instant::now();
    let expectation = Expectation::read(&args.ledger)?;
    let mut clickhouse = clickhouse(&args.judge)?;
    let settled = settle(&mut clickhouse, &expectation, args.judge.catch_up_within).await;
    let caught_up = began.elapsed();
    let verdict = judge(&mut clickhouse, &expectation, &args.judge, settled).await?;
    let report = Report::new(&expectation, &args.judge, verdict).caught_up(settled, caught_up);
    Ok(Report { ledger: args.ledger.display().to_string(), ..report })
}

/// Becomes true at the first SIGTERM. The second one ends the process, as the first one would without this.
fn end_on_sigterm() -> anyhow::Result<watch::Receiver<bool>> {
    let mut signals = signal(SignalKind::terminate())?;
    let (sender, receiver) = watch::channel(false);
    tokio::task::spawn_local(async move {
        signals.recv().await;
        sender.send_replace(true);
        signals.recv().await;
        std::process::exit(ENDED_BY_SIGTERM);
    });
    Ok(receiver)
}

fn begin(args: &Args, keys: &[OrganizationKey]) -> anyhow::Result<Shared> {
    let now = SystemClock.now();
    let run = Rc::new(Run {
        format: FORMAT,
        // Two runs of a machine differ in the process or in the time.
        id: format!("{:x}-{:x}", now.timestamp_millis(), std::process::id()),
        seed: args.seed,
        started_at_ms: now.timestamp_millis(),
        rate: args.rate,
        customers: args.customers,
        metrics: args.codes.clone(),
        organizations: keys.iter().map(|key| key.organization.clone()).collect(),
        edge_cases: args.edge_cases,
    });
    let shares = Shares {
        duplicates: args.duplicates,
        changed: args.changed,
        invalid: args.edge_cases / INVALID_PART,
    };
    let planner = Planner::new(args.seed, keys.len(), args.events_per_request, shares);
    let ledger = Ledger::create(&args.ledger_dir, &run)?;
    let sync = args.sync_ledger.then(|| ledger.group_sync()).transpose()?;
    let traffic = Traffic { sync, ..Traffic::new(run, planner, ledger)? };
    Ok(Rc::new(RefCell::new(traffic)))
}

/// One sender per connection; the APIs take turns.
fn senders(args: &Args, keys: &[OrganizationKey]) -> anyhow::Result<Vec<Sender>> {
    let endpoints = args.url.iter().map(|url| Endpoint::parse(url).context("--url"));
    let endpoints = endpoints.collect::<anyhow::Result<Vec<_>>>()?;
    let connections = usize::from(args.connections);
    let endpoints = endpoints.iter().cycle().take(connections);
    endpoints.map(|endpoint| Sender::new(endpoint.clone(), keys, args.request_timeout)).collect()
}

fn clickhouse(args: &JudgeArgs) -> anyhow::Result<ClickHouse> {
    let endpoint = Endpoint::parse(&args.clickhouse_url).context("--clickhouse-url")?;
    Ok(ClickHouse::new(endpoint, args.clickhouse_user.clone(), args.clickhouse_password.clone()))
}

/// One event per organization, so that a wrong key or address is an error at once and not a minute of
/// refusals.
async fn send_first(traffic: &Shared, mut senders: Vec<Sender>) -> anyhow::Result<Vec<Sender>> {
    let organizations = traffic.borrow().run.organizations.len();
    for organization in (0..).take(organizations) {
        let plan = traffic.borrow_mut().planner.plan_fresh(organization, 1);
        let first = senders.first_mut().context("there is at least one connection")?;
        send(traffic, first, plan).await?;
    }
    let senders = resolve(traffic, senders, Instant::now() + FIRST_REQUEST_LIMIT).await?;
    let mut traffic = traffic.borrow_mut();
    if traffic.tally.acked == u64::try_from(organizations)? {
        traffic.latency.reset();
        return Ok(senders);
    }
    let reason = traffic.rejection_codes.keys().next().or(traffic.last_unknown.as_ref()).cloned();
    bail!("the API does not accept events: {}", reason.unwrap_or_default());
}

/// The load, with one more connection for what has to be sent again meanwhile.
async fn send_load(
    args: &Args,
    traffic: &Shared,
    schedule: Schedule,
    senders: Vec<Sender>,
    end: &watch::Receiver<bool>,
) -> anyhow::Result<Punctuality> {
    let retrier = self::senders(args, &args.credentials())?
        .pop()
        .context("there is at least one connection")?;
    let over = Rc::new(Cell::new(false));
    let retries = alongside(Rc::clone(traffic), retrier, Rc::clone(&over));
    let retries = tokio::task::spawn_local(retries);
    traffic.borrow_mut().silence.start(Instant::now());
    let punctuality = generate(traffic, schedule, senders, args.overtime, end).await?;
    over.set(true);
    retries.await??;
    Ok(punctuality)
}

/// The events that show when everything before them has been consumed; only once all else is settled.
async fn send_last(
    traffic: &Shared,
    mut senders: Vec<Sender>,
    deadline: Instant,
) -> anyhow::Result<()> {
    if !traffic.borrow().unresolved.is_empty() {
        return Ok(());
    }
    let latency = traffic.borrow().latency.clone();
    let plan = traffic.borrow_mut().planner.plan_drain();
    let first = senders.first_mut().context("there is at least one connection")?;
    send(traffic, first, plan).await?;
    resolve(traffic, senders, deadline).await?;
    traffic.borrow_mut().latency = latency;
    Ok(())
}

async fn send(traffic: &Shared, sender: &mut Sender, plan: RequestPlan) -> anyhow::Result<()> {
    traffic.borrow_mut().begin(&plan)?;
    let now = Instant::now();
    sender.attempt(traffic, Pending { plan, due: now, tried: now }).await?;
    Ok(())
}

/// What is observed beside the load.
struct Watch {
    lag: Rc<RefCell<Lag>>,
    progress: Rc<RefCell<Progress>>,
    processes: Rc<RefCell<Processes>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    fn start(args: &Args, traffic: &Shared, schedule: Schedule) -> anyhow::Result<Self> {
        let lag = Rc::new(RefCell::new(Lag::new()?));
        let generator = NamedProcess { name: "generator".to_owned(), pid: std::process::id() };
        let processes = Processes::start(args.processes.iter().cloned().chain([generator]));
        let processes = Rc::new(RefCell::new(processes));
        let progress = Progress::new(schedule.requests() * args.events_per_request)?;
        let progress = Rc::new(RefCell::new(progress));
        let sampling = lag::sample(Rc::clone(traffic), clickhouse(&args.judge)?, Rc::clone(&lag));
        let showing =
            show(Rc::clone(traffic), Rc::clone(&lag), Rc::clone(&processes), Rc::clone(&progress));
        let tasks = vec![tokio::task::spawn_local(sampling), tokio::task::spawn_local(showing)];
        Ok(Self { lag, progress, processes, tasks })
    }

    fn say(&self, text: &str) {
        self.progress.borrow().say(text);
    }

    /// Ends all sampling, before the verdict's own queries cost CPU.
    async fn stop_sampling(&self) -> Vec<Usage> {
        let deadline = Instant::now() + LAST_SAMPLES_LIMIT;
        while !self.lag.borrow().waiting.is_empty() && Instant::now() < deadline {
            sleep(SAMPLE_EVERY).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        let mut processes = self.processes.borrow_mut();
        processes.sample();
        processes.usage()
    }
}

async fn show(
    traffic: Shared,
    lag: Rc<RefCell<Lag>>,
    processes: Rc<RefCell<Processes>>,
    progress: Rc<RefCell<Progress>>,
) {
    let mut ticks = interval(SAMPLE_EVERY);
    loop {
        ticks.tick().await;
        processes.borrow_mut().sample();
        progress.borrow_mut().show(&traffic.borrow(), &lag.borrow());
    }
}

fn with_traffic(mut report: Report, args: &Args, traffic: &Traffic) -> Report {
    for i in 0..traffic.broken_answers {
        let example = usize::try_from(i).ok().and_then(|i| traffic.broken_examples.get(i));
        report.verdict.add(Problem::WrongAnswer, || example.cloned().unwrap_or_default());
    }
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Report {
        ledger: traffic.ledger.path().display().to_string(),
        target_rate: args.rate,
        events_per_request: args.events_per_request,
        unknown_attempts: traffic.tally.unknown_attempts,
        rejection_codes: traffic.rejection_codes.clone(),
        ack_latency_us: Quantiles::of(&traffic.latency),
        longest_without_ack_ms: milliseconds(traffic.silence.longest),
        longest_without_ack_began_ms: milliseconds(traffic.silence.began),
        ..report
    }
}

fn with_load(report: Report, acked: u64, punctuality: Punctuality, lag: &Lag) -> Report {
    let took_ms = punctuality.took.as_millis().max(1);
    Report {
        achieved_rate: u64::try_from(u128::from(acked) * 1_000 / took_ms).unwrap_or(u64::MAX),
        milliseconds: u64::try_from(took_ms).unwrap_or(u64::MAX),
        late_requests: punctuality.late,
        latest_start_ms: u64::try_from(punctuality.latest.as_millis()).unwrap_or(u64::MAX),
        never_started_requests: punctuality.never_started,
        queryable_lag_ms: Quantiles::of(&lag.samples),
        never_visible: u64::try_from(lag.waiting.len()).unwrap_or(u64::MAX),
        failed_lag_queries: lag.failed_queries,
        ..report
    }
}
