//! Every point between two steps, with every kind of stop, under one load that is judged at the end.

use crate::fault::{Fault, Process, Stop};
use crate::load::{Load, LoadPlan};
use crate::rig::{READY_LIMIT, Rig, Setup, within};
use crate::schedule::points_of;
use crate::trial::name_of;
use anyhow::bail;
use fault_injection::Point;
use serde::Serialize;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::stack::Engines;

/// The load ends when the last case has; this only bounds it.
const LOAD_LIMIT: Duration = Duration::from_secs(3_600);
/// How long a step stands still: beyond the session timeout of the consumer group.
const STALL_MS: u32 = 8_000;

/// A stop at a point of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub process: Process,
    pub point: Point,
    pub stop: Stop,
}

/// How all cases together ended.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    pub engines: &'static str,
    /// `process point stop`, and the milliseconds from the arming until events were billed again.
    pub cases: Vec<(String, u64)>,
    /// Kinds of disagreement between the ledger and the store, and how often.
    pub findings: BTreeMap<String, u64>,
}

/// Every case of a stack on `engines`.
pub fn cases(engines: Engines) -> Vec<Case> {
    let processes = match engines {
        Engines::Embedded => vec![Process::Standalone],
        Engines::Servers => vec![Process::IngestApi, Process::EventConsumer(0)],
    };
    let stops = [Stop::Abort, Stop::Stall { milliseconds: STALL_MS }, Stop::Error];
    let of = |process: Process| {
        points_of(process)
            .into_iter()
            .flat_map(move |point| stops.map(|stop| Case { process, point, stop }))
    };
    processes.into_iter().flat_map(of).collect()
}

/// Carries out `cases` one after the other. An error when a case was not met, or nothing worked again after it.
pub fn run(engines: Engines, cases: &[Case], mut tell: impl FnMut(&str)) -> anyhow::Result<Matrix> {
    let setup = Setup { brokers: 1, consumers: 1, small_disks: false, ..Setup::new(engines) };
    let mut rig = Rig::start(&setup)?;
    let outcome = run_on(&rig, engines, cases, &mut tell);
    if outcome.as_ref().map_or(true, |matrix| !matrix.findings.is_empty()) {
        tell(&format!("data and logs: {}", rig.keep().display()));
    }
    outcome
}

fn run_on(
    rig: &Rig,
    engines: Engines,
    cases: &[Case],
    tell: &mut impl FnMut(&str),
) -> anyhow::Result<Matrix> {
    let arguments = ["--exclusive", "--edge-cases", "4%"].map(str::to_owned).to_vec();
    let plan = LoadPlan { rate: 200, arguments, ..LoadPlan::new(1, LOAD_LIMIT) };
    let load = Load::start(rig, plan)?;
    let mut done = Vec::with_capacity(cases.len());
    for case in cases {
        let name = format!("{} {} {:?}", case.process, case.point.name(), case.stop);
        let start = Instant::now();
        if let Err(error) = run_case(rig, case) {
            bail!("{name}: {error:#}");
        }
        let took = u64::try_from(start.elapsed().as_millis())?;
        tell(&format!("{name}: billed again after {took} ms"));
        done.push((name, took));
    }
    let findings = load.end()?.findings;
    rig.await_committed()?;
    Ok(Matrix { engines: name_of(engines), cases: done, findings })
}

fn run_case(rig: &Rig, case: &Case) -> anyhow::Result<()> {
    let Case { process, point, stop } = *case;
    let service = rig.service(process)?;
    let fault = Fault::Point(process, point, stop);
    rig.apply(&fault)?;
    if matches!(point, Point::PartitionsAssigned | Point::IndexRebuilt) {
        // Nothing is assigned anew while all goes well.
        service.kill()?;
        service.release();
    }
    within(READY_LIMIT, "the point is met", || {
        service.has_fired(point).then_some(()).ok_or_else(|| "not yet".to_owned())
    })?;
    if let Stop::Stall { milliseconds } = stop {
        // It shows when it begins, and what is billed meanwhile says nothing.
        sleep(Duration::from_millis(milliseconds.into()));
    }
    rig.await_ready()?;
    rig.await_progress()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn both_engine_sets_together_meet_every_point_with_every_stop() {
        let met: HashSet<_> = [Engines::Embedded, Engines::Servers]
            .into_iter()
            .flat_map(cases)
            .map(|case| (case.point, case.stop))
            .collect();
        assert_eq!(met.len(), Point::ALL.len() * 3);
        assert_eq!(cases(Engines::Embedded).len(), Point::ALL.len() * 3);
    }
}
