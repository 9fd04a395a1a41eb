//! The load and its judge: the `loadtest` program, as a process that shares nothing with the stack.

use crate::rig::Rig;
use anyhow::{Context as _, bail};
use local_engines::process::ManagedProcess;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use testkit::stack::binary;

/// How long the generator may take beyond the load: it retries, waits for the store, and judges.
const JUDGEMENT_LIMIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Exit codes of the generator.
const PASSED: i32 = 0;
const FAILED: i32 = 1;

/// What is sent.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    pub seed: u64,
    /// Events per second.
    pub rate: u64,
    pub events_per_request: u64,
    pub duration: Duration,
    /// Shares of the events, such as `10%`.
    pub duplicates: &'static str,
    pub changed: &'static str,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Of the generator, beside that of this process.
    pub environment: Vec<(String, String)>,
}

impl LoadPlan {
    /// A load that leaves the machine room for many processes and has repeats of every kind.
    pub fn new(seed: u64, duration: Duration) -> Self {
        Self {
            seed,
            rate: 600,
            events_per_request: 20,
            duration,
            duplicates: "10%",
            changed: "5%",
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    process: ManagedProcess,
    plan: LoadPlan,
    log: PathBuf,
    report: PathBuf,
}

/// What the generator found when it compared the store with its ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Kinds of disagreement, and how often. Empty when everything is counted exactly once.
    pub findings: BTreeMap<String, u64>,
    /// The generator's whole report.
    pub report: Value,
}

impl Load {
    /// Starts the generator and returns once its first event is billed.
    pub fn start(rig: &Rig, plan: LoadPlan) -> anyhow::Result<Self> {
        let mut load = Self::spawn(rig, plan)?;
        load.await_first_row(rig)?;
        Ok(load)
    }

    /// Starts the generator.
    pub fn spawn(rig: &Rig, plan: LoadPlan) -> anyhow::Result<Self> {
        let directory = rig.directory();
        let (log, report, ledgers) = (
            directory.join(format!("loadtest-{}.log", plan.seed)),
            directory.join(format!("loadtest-{}.json", plan.seed)),
            directory.join("ledgers"),
        );
        let mut command = Command::new(binary("loadtest"));
        command
            .args(["--url", &rig.api_url()?, "--clickhouse-url", &rig.reader_url()])
            .args(["--rate", &plan.rate.to_string(), "--seed", &plan.seed.to_string()])
            .args(["--events-per-request", &plan.events_per_request.to_string()])
            .args(["--duration", &format!("{}ms", plan.duration.as_millis())])
            .args(["--duplicates", plan.duplicates, "--changed", plan.changed])
            .args(["--connections", "16", "--request-timeout", "8s", "--overtime", "20s"])
            .arg("--json")
            .arg(&report)
            .arg("--ledger-dir")
            .arg(&ledgers)
            .args(&plan.arguments)
            .envs(plan.environment.iter().map(|(name, value)| (name, value)));
        for tenant in rig.tenants() {
            command.args(["--keys", &format!("{}={}", tenant.organization, tenant.api_key)]);
        }
        let process = ManagedProcess::spawn(command, "loadtest", &log)?;
        Ok(Self { process, plan, log, report })
    }

    fn await_first_row(&mut self, rig: &Rig) -> anyhow::Result<()> {
        let reader = rig.reader();
        crate::rig::within(crate::rig::READY_LIMIT, "the first event is billed", || {
            if !self.process.is_running() {
                return Err(format!("the generator ended: {}", self.log_text()));
            }
            match reader.number("SELECT count() FROM billable_events")? {
                0 => Err("there is none".to_owned()),
                _ => Ok(()),
            }
        })
    }

    /// Ends the load now, and waits until the generator has judged.
    pub fn end(mut self) -> anyhow::Result<Judgement> {
        // SIGTERM ends the load, and the rest goes on.
        let status = self.process.stop(JUDGEMENT_LIMIT)?;
        self.judgement(status)
    }

    /// Waits until the generator has judged.
    pub fn finish(mut self) -> anyhow::Result<Judgement> {
        let deadline = Instant::now() + self.plan.duration + JUDGEMENT_LIMIT;
        while self.process.is_running() {
            if Instant::now() >= deadline {
                bail!("the generator did not end: {}", self.log_text());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let status = self.process.stop(Duration::ZERO)?;
        self.judgement(status)
    }

    fn judgement(&self, status: ExitStatus) -> anyhow::Result<Judgement> {
        let Some(code @ (PASSED | FAILED)) = status.code() else {
            bail!("the generator could not judge ({status}): {}", self.log_text());
        };
        let text = std::fs::read(&self.report).context("the generator writes a report")?;
        let report: Value = serde_json::from_slice(&text)?;
        let findings = findings(&report);
        if (code == PASSED) != findings.is_empty() {
            bail!("the generator ended with {status}, and its findings are {findings:?}");
        }
        Ok(Judgement { findings, report })
    }

    fn log_text(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

fn findings(report: &Value) -> BTreeMap<String, u64> {
    let found = report["verdict"]["findings"].as_object();
    found
        .into_iter()
        .flatten()
        .map(|(kind, finding)| (kind.clone(), finding["count"].as_u64().unwrap_or(0)))
        .collect()
}
