//! One schedule from beginning to end: a stack, a load, the faults, the verdict.

use crate::fault::Fault;
use crate::load::{Load, LoadPlan};
use crate::nemesis::{self, Effect, Record};
use crate::rig::{Rig, Setup, Starts};
use crate::schedule::{TimedFault, schedule};
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::stack::Engines;

/// After everything works again and was judged, nothing may end for so long.
const CALM: Duration = Duration::from_secs(5);

/// What to try.
#[derive(Clone, Debug)]
pub struct Plan {
    pub setup: Setup,
    pub load: LoadPlan,
    pub schedule: Vec<TimedFault>,
}

impl Plan {
    /// The schedule of `seed`.
    pub fn new(engines: Engines, seed: u64, duration: Duration) -> Self {
        let setup = Setup::new(engines);
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let schedule = schedule(seed, &setup.targets(), milliseconds);
        Self { setup, load: LoadPlan::new(seed, duration), schedule }
    }
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything accepted is counted exactly once, and everything works again.
    Passed,
    /// It is not, or does not.
    Failed,
    /// The stack did not start, or a fault could not be carried out, so that a pass would say nothing.
    Broken,
}

/// What is known of a trial.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub engines: &'static str,
    pub seed: u64,
    pub duration_seconds: u64,
    pub verdict: Verdict,
    /// Kinds of disagreement between the ledger and the store, and what does not work again; and how often.
    pub findings: BTreeMap<String, u64>,
    /// What was said of them.
    pub reasons: Vec<String>,
    pub faults: Vec<Record>,
    /// The faults that are enough to make it fail, when they were looked for.
    pub reduced: Option<Vec<TimedFault>>,
    pub starts: BTreeMap<String, Starts>,
    /// From the end of the last fault until every part worked.
    pub ready_again_ms: u64,
    pub seconds: u64,
    /// Data and logs of a trial that did not pass.
    pub kept: Option<PathBuf>,
    /// The load generator's report.
    pub load: Value,
}

impl Trial {
    fn new(plan: &Plan) -> Self {
        Self {
            engines: name_of(plan.setup.engines),
            seed: plan.load.seed,
            duration_seconds: plan.load.duration.as_secs(),
            verdict: Verdict::Broken,
            findings: BTreeMap::new(),
            reasons: Vec::new(),
            faults: Vec::new(),
            reduced: None,
            starts: BTreeMap::new(),
            ready_again_ms: 0,
            seconds: 0,
            kept: None,
            load: Value::Null,
        }
    }

    /// Notes what does not work although no fault lasts.
    fn require(&mut self, what: &str, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            *self.findings.entry(what.to_owned()).or_default() += 1;
            self.reasons.push(format!("{error:#}"));
        }
    }

    fn decide(&mut self) {
        let broken: Vec<_> = self.faults.iter().filter_map(|record| record.broken()).collect();
        self.verdict = match (self.findings.is_empty(), broken.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::Broken,
            (true, true) => Verdict::Passed,
        };
        let broken: Vec<_> = broken.into_iter().map(str::to_owned).collect();
        self.reasons.extend(broken);
    }
}

impl Record {
    fn broken(&self) -> Option<&str> {
        match &self.effect {
            Effect::Broken(reason) => Some(reason),
            Effect::Hit | Effect::Nothing | Effect::LeftOut => None,
        }
    }
}

/// Runs a trial.
pub fn run(plan: &Plan) -> Trial {
    let begin = Instant::now();
    let mut trial = Trial::new(plan);
    match Rig::start(&plan.setup) {
        Ok(mut rig) => {
            run_on(&rig, plan, &mut trial);
            trial.decide();
            if trial.verdict != Verdict::Passed {
                trial.kept = Some(rig.keep().to_owned());
            }
        }
        Err(error) => trial.reasons.push(format!("the stack did not start: {error:#}")),
    }
    trial.seconds = begin.elapsed().as_secs();
    trial
}

fn run_on(rig: &Rig, plan: &Plan, trial: &mut Trial) {
    let load = match Load::start(rig, judged_whole(plan)) {
        Ok(load) => load,
        Err(error) => return trial.require("not_begun", Err(error)),
    };
    trial.faults = nemesis::carry_out(rig, &plan.schedule);
    let lifted = Instant::now();
    trial.require("not_ready", rig.await_ready());
    trial.ready_again_ms = u64::try_from(lifted.elapsed().as_millis()).unwrap_or(u64::MAX);
    match load.finish() {
        Ok(judgement) => {
            trial.load = judgement.report;
            trial.findings.extend(judgement.findings);
        }
        Err(error) => trial.require("not_judged", Err(error)),
    }
    trial.require("not_committed", rig.await_committed());
    trial.require("missing_dead_letter", every_poison_is_parked(rig));
    trial.require("restart_loop", nothing_ends(rig));
    trial.starts = rig
        .services()
        .iter()
        .map(|service| (service.process().to_string(), service.starts()))
        .collect();
}

fn every_poison_is_parked(rig: &Rig) -> anyhow::Result<()> {
    let parked = rig.reader().number("SELECT count() FROM dead_letters FINAL");
    let parked = parked.map_err(|error| anyhow!(error)).context("counting dead letters")?;
    match rig.poisoned() {
        poisoned if poisoned > parked => Err(anyhow!("{parked} dead letters of {poisoned}")),
        _ => Ok(()),
    }
}

fn nothing_ends(rig: &Rig) -> anyhow::Result<()> {
    let before = rig.restarts();
    sleep(CALM);
    rig.await_ready()?;
    match rig.restarts() - before {
        0 => Ok(()),
        ends => Err(anyhow!("services ended {ends} times in {} s of calm", CALM.as_secs())),
    }
}

/// The plan's load with events at every limit, and nobody else in the log but the poison of the schedule.
fn judged_whole(plan: &Plan) -> LoadPlan {
    let records = |timed: &TimedFault| match timed.fault {
        Fault::Poison { records } => u64::from(records),
        _ => 0,
    };
    let poison: u64 = plan.schedule.iter().map(records).sum();
    let mut load = plan.load.clone();
    let arguments = ["--exclusive", "--edge-cases", "4%", "--expect-dead-letters"];
    load.arguments.extend(arguments.map(str::to_owned));
    load.arguments.push(format!("0..{poison}"));
    if plan.setup.engines == Engines::Servers {
        // The idempotence of librdkafka's producer ends with its session, which a broker's failure may
        // end (librdkafka issue 4953). What it then writes twice must not be billed twice.
        load.arguments.push("--log-may-duplicate".to_owned());
    }
    load
}

/// As the command line has it.
pub const fn name_of(engines: Engines) -> &'static str {
    match engines {
        Engines::Embedded => "embedded",
        Engines::Servers => "servers",
    }
}
