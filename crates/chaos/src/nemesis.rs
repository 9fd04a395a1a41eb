//! Carries out a schedule on a rig.

use crate::fault::Fault;
use crate::rig::{Applied, Rig};
use crate::schedule::TimedFault;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What became of a fault.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub planned: TimedFault,
    /// When it began and was lifted, in milliseconds.
    pub began: u64,
    pub lifted: u64,
    pub effect: Effect,
}

/// Whether a fault did anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    Hit,
    /// Nothing came its way: no byte on the link, no step at the point, no space left to take.
    Nothing,
    /// This machine or build cannot do it.
    LeftOut,
    /// It could not be begun or lifted, for this reason.
    Broken(String),
}

/// Begins and ends every fault at its time; returns when all are lifted.
///
/// Faults of one target do not overlap in a schedule, but an engine may take long to start again; the
/// next fault waits for that.
pub fn carry_out(rig: &Rig, schedule: &[TimedFault]) -> Vec<Record> {
    let start = Instant::now();
    let turns: HashMap<_, _> =
        schedule.iter().map(|planned| (planned.fault.turn(), Mutex::new(()))).collect();
    thread::scope(|scope| {
        let faults: Vec<_> = schedule
            .iter()
            .map(|planned| {
                let turn = &turns[&planned.fault.turn()];
                scope.spawn(move || carry_out_one(rig, planned, start, turn))
            })
            .collect();
        faults.into_iter().map(|fault| fault.join().expect("a fault is recorded")).collect()
    })
}

fn carry_out_one(rig: &Rig, planned: &TimedFault, start: Instant, turn: &Mutex<()>) -> Record {
    wait_until(start + Duration::from_millis(planned.at));
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let began = milliseconds(start);
    let effect = effect_of(rig, planned);
    Record { planned: *planned, began, lifted: milliseconds(start), effect }
}

fn effect_of(rig: &Rig, planned: &TimedFault) -> Effect {
    let fault = &planned.fault;
    let before = if let Fault::Link(..) = fault { hits(rig, fault) } else { 0 };
    let begun = rig.apply(fault);
    if matches!(begun, Ok(Applied::LeftOut)) {
        return Effect::LeftOut;
    }
    wait_until(Instant::now() + Duration::from_millis(planned.lasts));
    let hit = hits(rig, fault) > before;
    // Also when it was not begun: half of it may have been.
    let lifted = rig.lift(fault);
    match (begun, lifted) {
        (Err(error), _) | (_, Err(error)) => Effect::Broken(format!("{fault}: {error:#}")),
        (Ok(Applied::Done), Ok(())) => Effect::Hit,
        _ if hit => Effect::Hit,
        _ => Effect::Nothing,
    }
}

/// How often something of this kind has happened so far, for faults that may hit nothing.
fn hits(rig: &Rig, fault: &Fault) -> u64 {
    match fault {
        Fault::Link(link, _) => rig.hits(*link),
        Fault::Point(process, point, _) => {
            rig.service(*process).map_or(0, |service| u64::from(service.has_fired(*point)))
        }
        _ => 0,
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}
