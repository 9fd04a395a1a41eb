//! One schedule from beginning to end: a stack, a load, the faults, the verdict.

use crate::fault::Fault;
use crate::load::{Load, LoadPlan};
use crate::nemesis;
use crate::rig::{Rig, Setup, Starts};
use crate::schedule::{TimedFault, schedule};
use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::stack::Engines;

/// What to try.
#[derive(Clone, Debug)]
pub struct Plan {
    pub setup: Setup,
    pub load: LoadPlan,
    /// `None` for the schedule of the load's seed.
    pub schedule: Option<Vec<TimedFault>>,
}

impl Plan {
    /// The schedule of `seed`.
    pub fn new(engines: Engines, seed: u64, duration: Duration) -> Self {
        Self { setup: Setup::new(engines), load: LoadPlan::new(seed, duration), schedule: None }
    }
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything accepted is counted exactly once, and everything works again.
    Passed,
    /// It is not.
    Failed,
    /// The trial itself did not work, so that it says nothing.
    Broken,
}

/// What is known of a trial.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub engines: &'static str,
    pub seed: u64,
    pub verdict: Verdict,
    /// Kinds of disagreement between the ledger and the store, and how often.
    pub findings: BTreeMap<String, u64>,
    /// Why it is broken, or what does not work again.
    pub reason: Option<String>,
    pub schedule: Vec<TimedFault>,
    /// Stops at points that a process came to, as `process point`.
    pub fired: Vec<String>,
    pub starts: BTreeMap<String, Starts>,
    pub seconds: u64,
    /// Data and logs of a trial that did not pass.
    pub kept: Option<PathBuf>,
    /// The load generator's report.
    pub load: Value,
}

/// Runs a trial.
pub fn run(plan: &Plan) -> Trial {
    let begin = Instant::now();
    let mut trial = Trial {
        engines: name_of(plan.setup.engines),
        seed: plan.load.seed,
        verdict: Verdict::Broken,
        findings: BTreeMap::new(),
        reason: None,
        schedule: Vec::new(),
        fired: Vec::new(),
        starts: BTreeMap::new(),
        seconds: 0,
        kept: None,
        load: Value::Null,
    };
    match Rig::start(&plan.setup) {
        Ok(mut rig) => {
            if let Err(error) = run_on(&rig, plan, &mut trial) {
                trial.reason = Some(format!("{error:#}"));
            }
            if trial.verdict != Verdict::Passed {
                trial.kept = Some(rig.keep().to_owned());
            }
        }
        Err(error) => trial.reason = Some(format!("the stack did not start: {error:#}")),
    }
    trial.seconds = begin.elapsed().as_secs();
    trial
}

fn run_on(rig: &Rig, plan: &Plan, trial: &mut Trial) -> anyhow::Result<()> {
    let duration = u64::try_from(plan.load.duration.as_millis())?;
    trial.schedule =
        plan.schedule.clone().unwrap_or_else(|| schedule(plan.load.seed, &rig.targets(), duration));
    let load = Load::start(rig, judged_whole(plan, &trial.schedule))?;
    let outcome = nemesis::carry_out(rig, &trial.schedule);
    trial.fired = outcome
        .fired
        .iter()
        .map(|(process, point)| format!("{process} {}", point.name()))
        .collect();
    if !outcome.broken.is_empty() {
        bail!("{}", outcome.broken.join("; "));
    }
    let recovered = rig.await_ready();
    let judgement = load.finish()?;
    let parked = rig.reader().number("SELECT count() FROM dead_letters FINAL");
    trial.starts = rig
        .services()
        .iter()
        .map(|service| (service.process().to_string(), service.starts()))
        .collect();
    trial.load = judgement.report;
    trial.findings = judgement.findings;
    let parked = parked.map_err(|error| anyhow!(error)).context("counting dead letters")?;
    if parked < rig.poisoned() {
        trial.findings.insert("missing_dead_letter".to_owned(), rig.poisoned() - parked);
    }
    trial.verdict = if trial.findings.is_empty() && recovered.is_ok() {
        Verdict::Passed
    } else {
        Verdict::Failed
    };
    recovered
}

/// The plan's load with events at every limit, and nobody else in the log but the poison of `schedule`.
fn judged_whole(plan: &Plan, schedule: &[TimedFault]) -> LoadPlan {
    let records = |timed: &TimedFault| match timed.fault {
        Fault::Poison { records } => u64::from(records),
        _ => 0,
    };
    let poison: u64 = schedule.iter().map(records).sum();
    let mut load = plan.load.clone();
    let arguments = ["--exclusive", "--edge-cases", "4%", "--expect-dead-letters"];
    load.arguments.extend(arguments.map(str::to_owned));
    load.arguments.push(format!("0..{poison}"));
    load
}

/// As the command line has it.
pub const fn name_of(engines: Engines) -> &'static str {
    match engines {
        Engines::Embedded => "embedded",
        Engines::Servers => "servers",
    }
}
