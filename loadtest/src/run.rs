//! One run from beginning to end.

use crate::args::{Args, NamedProcess};
use crate::clickhouse::ClickHouse;
use crate::event::Run;
use crate::expectation::Expectation;
use crate::generate::{Punctuality, generate};
use crate::http::Endpoint;
use crate::lag::{self, Lag};
use crate::ledger::{FORMAT, Ledger};
use crate::plan::{Planner, RequestPlan};
use crate::processes::{Processes, Usage};
use crate::progress::Progress;
use crate::report::{Quantiles, Report};
use crate::resolve::resolve;
use crate::schedule::Schedule;
use crate::settle;
use crate::traffic::{Pending, Sender, Shared, Traffic};
use crate::verdict::{Problem, Verdict};
use anyhow::{Context, bail};
use service_kit::clock::{Clock, SystemClock};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

/// How long the first request may take to be accepted.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(15);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How long the last markers may take to be seen once everything is visible.
const LAST_SAMPLES_LIMIT: Duration = Duration::from_secs(2);

/// Sends, waits, judges.
///
/// # Errors
/// When there is nothing to judge: the API refuses the first request, ClickHouse can't be read, or
/// the ledger can't be written.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let schedule = Schedule::new(args.rate, args.events_per_request, args.duration);
    let traffic = begin(args)?;
    let senders = senders(args)?;
    let senders = send_first(&traffic, senders).await?;
    let watch = Watch::start(args, &traffic, schedule)?;

    let punctuality = generate(&traffic, schedule, senders, args.overtime).await?;
    let acked_under_load = traffic.borrow().tally.acked;
    traffic.borrow().ledger.sync()?;

    watch.say("waiting for the outcome of every request");
    let deadline = Instant::now() + args.resolve_within;
    let senders = resolve(&traffic, self::senders(args)?, deadline).await?;
    send_last(&traffic, senders, deadline).await?;
    traffic.borrow().ledger.sync()?;

    let last_ack = Instant::now();
    let expectation = Expectation::read(traffic.borrow().ledger.path())?;
    let mut clickhouse = clickhouse(args)?;
    watch.say("waiting for the store to show everything");
    let deadline = last_ack + args.catch_up_within;
    if settle::drain_was_acked(&expectation) {
        settle::drained(&mut clickhouse, &expectation.run, deadline).await;
    }
    let processes = watch.stop_sampling().await;
    let caught_up = settle::caught_up(&mut clickhouse, &expectation, deadline).await;
    let caught_up_ms =
        if caught_up { Some(u64::try_from(last_ack.elapsed().as_millis())?) } else { None };

    watch.say("comparing the store with the ledger");
    let verdict = settle::judge(&mut clickhouse, &expectation).await?;
    let report = report(args, &traffic.borrow(), &expectation, verdict);
    let report = Report {
        caught_up_ms,
        processes,
        ..with_load(report, acked_under_load, punctuality, &watch.lag.borrow())
    };
    watch.progress.borrow().finish();
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report)
}

fn begin(args: &Args) -> anyhow::Result<Shared> {
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
        organization: args.organization.clone(),
    });
    let planner = Planner::new(args.seed, args.events_per_request, args.duplicates, args.restamped);
    let ledger = Ledger::create(&args.ledger_dir, &run)?;
    Ok(Rc::new(RefCell::new(Traffic::new(run, planner, ledger)?)))
}

fn senders(args: &Args) -> anyhow::Result<Vec<Sender>> {
    let endpoint = Endpoint::parse(&args.url).context("--url")?;
    (0..args.connections)
        .map(|_| Sender::new(endpoint.clone(), &args.api_key, args.request_timeout))
        .collect()
}

fn clickhouse(args: &Args) -> anyhow::Result<ClickHouse> {
    let endpoint = Endpoint::parse(&args.clickhouse_url).context("--clickhouse-url")?;
    Ok(ClickHouse::new(endpoint, args.clickhouse_user.clone(), args.clickhouse_password.clone()))
}

/// One event, so that a wrong key or address is an error at once and not a minute of refusals.
async fn send_first(traffic: &Shared, mut senders: Vec<Sender>) -> anyhow::Result<Vec<Sender>> {
    let plan = traffic.borrow_mut().planner.plan_fresh(1);
    let first = senders.first_mut().context("there is at least one connection")?;
    send(traffic, first, plan).await?;
    let senders = resolve(traffic, senders, Instant::now() + FIRST_REQUEST_LIMIT).await?;
    let mut traffic = traffic.borrow_mut();
    if traffic.tally.acked == 1 {
        traffic.latency.reset();
        return Ok(senders);
    }
    let reason = traffic.rejection_codes.keys().next().or(traffic.last_unknown.as_ref()).cloned();
    bail!("the API does not accept events: {}", reason.unwrap_or_default());
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
    sender.attempt(traffic, Pending { plan, due: Instant::now() }).await
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
        let sampling = lag::sample(Rc::clone(traffic), clickhouse(args)?, Rc::clone(&lag));
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

fn report(
    args: &Args,
    traffic: &Traffic,
    expectation: &Expectation,
    mut verdict: Verdict,
) -> Report {
    for i in 0..traffic.broken_answers {
        let example = usize::try_from(i).ok().and_then(|i| traffic.broken_examples.get(i));
        verdict.add(Problem::WrongAnswer, || example.cloned().unwrap_or_default());
    }
    Report {
        run: traffic.run.id.clone(),
        ledger: traffic.ledger.path().display().to_string(),
        target_rate: args.rate,
        events_per_request: args.events_per_request,
        counts: expectation.counts,
        unknown_attempts: traffic.tally.unknown_attempts,
        rejection_codes: traffic.rejection_codes.clone(),
        ack_latency_us: Quantiles::of(&traffic.latency),
        verdict,
        ..Report::default()
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
        ..report
    }
}
