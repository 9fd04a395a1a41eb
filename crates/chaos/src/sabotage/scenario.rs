//! The situations that bring out bugs: a stack, a load, and the fault that falls together with them.

use super::{Found, probe};
use crate::fault::{Fault, Link, LinkFault, Process, Stop};
use crate::load::{Judgement, Load, LoadPlan};
use crate::rig::{READY_LIMIT, Rig, Setup, within};
use anyhow::{Context as _, bail};
use fault_injection::{Point, Sabotage};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::stack::Engines;

const SECOND: Duration = Duration::from_secs(1);
const HALF_A_SECOND: Duration = Duration::from_millis(500);
/// Longest time for a service to leave its group.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Within which the rig's brokers, which do so every 3 seconds, have looked for expired records.
const EXPIRY_LIMIT: Duration = Duration::from_secs(8);
const TEN_DAYS_MS: i64 = 10 * 86_400_000;
/// Codes of ClickHouse: the memory limit is reached, and access is denied.
const REFUSALS: [u16; 2] = [241, 497];
/// Records that are no events: ten of each kind.
const POISON_RECORDS: u8 = 70;

/// A situation. What it does to the product as it is, the product survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Repeats, changed copies, confusable ids, large quantities, instants at borders.
    Traffic,
    /// The process is killed while the log stands still and requests wait for it.
    KillWithQueue,
    /// The log cannot be written.
    FailedWrites,
    /// The process is killed while a batch is on its way to the store.
    KillWithBatch,
    /// The same, before anything was committed.
    KillAtFirstBatch,
    /// ClickHouse refuses inserts, by its memory limit and by its access control.
    RefusedInserts,
    /// The process ends between an insert and its commit, and reads on to another batch boundary.
    CutAgain,
    /// Records in the log that are no events.
    Poison,
    /// A second consumer comes and goes, and the way of the first one to the broker is cut.
    Rebalance,
    /// Events are ten days late, records are kept for one, and the consumer is away.
    Retention,
    /// A key is revoked.
    Revocation,
}

impl Scenario {
    pub const ALL: &[Self] = &[
        Self::Traffic,
        Self::KillWithQueue,
        Self::FailedWrites,
        Self::KillWithBatch,
        Self::KillAtFirstBatch,
        Self::RefusedInserts,
        Self::CutAgain,
        Self::Poison,
        Self::Rebalance,
        Self::Retention,
        Self::Revocation,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::KillWithQueue => "kill-with-queue",
            Self::FailedWrites => "failed-writes",
            Self::KillWithBatch => "kill-with-batch",
            Self::KillAtFirstBatch => "kill-at-first-batch",
            Self::RefusedInserts => "refused-inserts",
            Self::CutAgain => "cut-again",
            Self::Poison => "poison",
            Self::Rebalance => "rebalance",
            Self::Retention => "retention",
            Self::Revocation => "revocation",
        }
    }

    /// What is done, in a few words.
    pub const fn fault(self) -> &'static str {
        match self {
            Self::Traffic => "none: repeats, changed copies, confusable ids, values at limits",
            Self::KillWithQueue => "the log stands still, then the process is killed",
            Self::FailedWrites => "the log cannot be written three times",
            Self::KillWithBatch => "a batch stands still before its insert, then a kill",
            Self::KillAtFirstBatch => "the same with the first batch of all",
            Self::RefusedInserts => "ClickHouse refuses inserts with code 241, then with 497",
            Self::CutAgain => "answers of inserts are lost; ends between insert and commit",
            Self::Poison => "records that are no events in every partition",
            Self::Rebalance => "a second consumer comes and goes twice; the first one is cut off",
            Self::Retention => "the consumer is away, and events are older than retention",
            Self::Revocation => "the key is revoked",
        }
    }

    pub const fn is_on_servers(self) -> bool {
        matches!(self, Self::Poison | Self::Rebalance | Self::Retention)
    }

    /// Whether the load lasts until everything is done, however slow the machine is. Elsewhere what is sent
    /// after the fault is not what tells.
    const fn is_ended(self) -> bool {
        matches!(self, Self::CutAgain | Self::Retention)
    }

    /// Runs the scenario, and says what its judge has found.
    pub(super) fn run(self, sabotage: Option<Sabotage>) -> anyhow::Result<Found> {
        let mut rig = Rig::start(&self.setup(sabotage)).context("the stack did not start")?;
        let mut found = self.run_on(&rig, sabotage);
        match &mut found {
            Ok(found) if found.findings.is_empty() == is_wrong(sabotage) => {
                found.kept = Some(rig.keep().to_owned());
            }
            Ok(_) => {}
            Err(_) => {
                let kept = rig.keep().display().to_string();
                return found.with_context(|| format!("data and logs: {kept}"));
            }
        }
        found
    }

    fn run_on(self, rig: &Rig, sabotage: Option<Sabotage>) -> anyhow::Result<Found> {
        if self == Self::Revocation {
            return probe::revocation(rig);
        }
        self.prepare(rig)?;
        let plan = self.load(rig, sabotage);
        let load = match self {
            Self::KillAtFirstBatch | Self::Retention => Load::spawn(rig, plan)?,
            _ => Load::start(rig, plan)?,
        };
        self.act(rig)?;
        let judgement = if self.is_ended() { load.end() } else { load.finish() };
        let Judgement { findings, mut report } = judgement?;
        Ok(Found { findings, verdict: report["verdict"].take(), kept: None })
    }

    fn setup(self, sabotage: Option<Sabotage>) -> Setup {
        let engines = if self.is_on_servers() { Engines::Servers } else { Engines::Embedded };
        let environment = [
            ("KAFKA_SESSION_TIMEOUT", "3s"),
            ("KAFKA_RETENTION", if self == Self::Retention { "1d" } else { "7d" }),
        ];
        Setup {
            brokers: 1,
            consumers: if self == Self::Rebalance { 2 } else { 1 },
            small_disks: false,
            sabotage,
            environment: environment.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            ..Setup::new(engines)
        }
    }

    fn load(self, rig: &Rig, sabotage: Option<Sabotage>) -> LoadPlan {
        let seconds = match self {
            Self::Traffic => 4,
            Self::Rebalance | Self::RefusedInserts => 16,
            _ if self.is_ended() => 600,
            _ => 8,
        };
        // What a wrong behaviour has lost never comes, so that waiting for it is in vain.
        let patience = if is_wrong(sabotage) { "8s" } else { "60s" };
        let dead_letters = if self == Self::Poison { POISON_RECORDS } else { 0 };
        let arguments = [
            "--exclusive",
            "--log-may-duplicate",
            "--edge-cases",
            if self == Self::Retention { "0%" } else { "10%" },
            "--catch-up-within",
            patience,
            "--expect-dead-letters",
            &dead_letters.to_string(),
        ];
        let environment = match self {
            Self::Retention => {
                vec![("TALLYMARK_FAULT_DIR".to_owned(), clock_dir(rig).display().to_string())]
            }
            _ => Vec::new(),
        };
        LoadPlan {
            changed: "10%",
            arguments: arguments.map(str::to_owned).into(),
            environment,
            ..LoadPlan::new(1, seconds * SECOND)
        }
    }

    /// What is done before anything is sent.
    fn prepare(self, rig: &Rig) -> anyhow::Result<()> {
        match self {
            Self::KillAtFirstBatch => {
                rig.service(Process::Standalone)?.arm(Point::BatchSealed, STALL)
            }
            Self::Rebalance => rig.service(Process::EventConsumer(1))?.stop(STOP_LIMIT),
            Self::Retention => {
                rig.service(Process::EventConsumer(0))?.kill()?;
                fs::create_dir_all(clock_dir(rig))?;
                Ok(fs::write(clock_dir(rig).join("clock"), format!("-{TEN_DAYS_MS}"))?)
            }
            _ => Ok(()),
        }
    }

    /// What is done under load.
    fn act(self, rig: &Rig) -> anyhow::Result<()> {
        match self {
            Self::Traffic | Self::Revocation => Ok(()),
            Self::KillWithQueue => kill_at(rig, Point::RecordsWritten, HALF_A_SECOND),
            // Long enough for what commits by a timer.
            Self::KillWithBatch => kill_at(rig, Point::BatchSealed, 5 * HALF_A_SECOND),
            Self::KillAtFirstBatch => kill_once_fired(rig, Point::BatchSealed, HALF_A_SECOND),
            Self::FailedWrites => {
                (0..3).try_for_each(|_| stop_at(rig, Point::RecordsWritten, Stop::Error))
            }
            Self::RefusedInserts => REFUSALS.into_iter().try_for_each(|code| refuse(rig, code)),
            Self::CutAgain => {
                let stops = [Stop::Error, Stop::Abort, Stop::Abort];
                stops.into_iter().try_for_each(|stop| {
                    stop_at(rig, Point::EventsInserted, stop)?;
                    rig.await_ready()
                })?;
                // The request that tells late from lost must not be in the batch that is cut again.
                rig.await_progress()
            }
            Self::Poison => rig.apply(&Fault::Poison { records: POISON_RECORDS }).map(drop),
            Self::Rebalance => rebalance(rig),
            Self::Retention => {
                await_expiry(rig)?;
                keep_records(rig)?;
                rig.service(Process::EventConsumer(0))?.release();
                rig.await_ready()
            }
        }
    }
}

const STALL: Stop = Stop::Stall { milliseconds: 10_000 };

fn is_wrong(sabotage: Option<Sabotage>) -> bool {
    sabotage.is_some_and(|sabotage| !sabotage.is_harmless())
}

fn clock_dir(rig: &Rig) -> std::path::PathBuf {
    rig.directory().join("loadtest.faults")
}

/// Lets `standalone` stand still at `point` for a while, and kills it there.
fn kill_at(rig: &Rig, point: Point, after: Duration) -> anyhow::Result<()> {
    rig.service(Process::Standalone)?.arm(point, STALL)?;
    kill_once_fired(rig, point, after)
}

fn kill_once_fired(rig: &Rig, point: Point, after: Duration) -> anyhow::Result<()> {
    await_fired(rig, point)?;
    sleep(after);
    let service = rig.service(Process::Standalone)?;
    service.kill()?;
    service.release();
    rig.await_ready()
}

fn stop_at(rig: &Rig, point: Point, stop: Stop) -> anyhow::Result<()> {
    rig.service(Process::Standalone)?.arm(point, stop)?;
    await_fired(rig, point)
}

fn await_fired(rig: &Rig, point: Point) -> anyhow::Result<()> {
    let service = rig.service(Process::Standalone)?;
    within(READY_LIMIT, "the point is met", || {
        service.has_fired(point).then_some(()).ok_or_else(|| point.name().to_owned())
    })
}

fn refuse(rig: &Rig, code: u16) -> anyhow::Result<()> {
    let link = Link::ConsumerToClickHouse(0);
    let before = rig.hits(link);
    let fault = Fault::Link(link, LinkFault::RefuseInserts { code });
    rig.apply(&fault)?;
    let refused = within(READY_LIMIT, "an insert is refused", || match rig.hits(link) {
        hits if hits > before => Ok(()),
        _ => Err("none yet".to_owned()),
    });
    // The first one may be of conflicts; the next batch begins with events.
    sleep(3 * SECOND);
    rig.lift(&fault)?;
    // The next batches pass.
    sleep(2 * SECOND);
    refused
}

/// Gives half of the partitions to a second consumer and back, and cuts the way to the broker.
fn rebalance(rig: &Rig) -> anyhow::Result<()> {
    let second = rig.service(Process::EventConsumer(1))?;
    for _ in 0..2 {
        second.release();
        rig.await_ready()?;
        sleep(2 * SECOND);
        second.stop(STOP_LIMIT)?;
        // A batch of what has come back is inserted meanwhile.
        sleep(3 * SECOND);
    }
    let cut = Fault::Link(Link::ConsumerToBrokers(0), LinkFault::Cut);
    rig.apply(&cut)?;
    sleep(HALF_A_SECOND);
    rig.lift(&cut)
}

/// Waits until the broker has deleted expired records, or has looked for some and found none.
fn await_expiry(rig: &Rig) -> anyhow::Result<()> {
    let before = log_start(rig)?;
    let deadline = Instant::now() + EXPIRY_LIMIT;
    while log_start(rig)? == before && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends the deletion of records: what is lost is not to depend on who is faster.
fn keep_records(rig: &Rig) -> anyhow::Result<()> {
    let kafka = rig.kafka()?;
    let output = kafka
        .tool("kafka.admin.ConfigCommand", &kafka.direct_bootstrap())
        .args(["--alter", "--entity-type", "topics", "--entity-name", "usage.events"])
        .args(["--add-config", "retention.ms=-1"])
        .output()?;
    if !output.status.success() {
        bail!("retention.ms was not changed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The first offset of a partition, from the names of the broker's files.
fn log_start(rig: &Rig) -> anyhow::Result<Option<String>> {
    let directory = rig.directory().join("kafka-disk-1/data/usage.events-0");
    let mut names = Vec::new();
    for file in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        names.push(file?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".log"));
    Ok(names.into_iter().min())
}
