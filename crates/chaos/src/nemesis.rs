//! Carries out a schedule on a rig.

use crate::fault::{Fault, Process};
use crate::rig::Rig;
use crate::schedule::TimedFault;
use fault_injection::Point;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What became of the faults of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Stops at points that a process came to.
    pub fired: Vec<(Process, Point)>,
    /// Faults that could not be begun or ended, with the reason. The trial says nothing then.
    pub broken: Vec<String>,
}

/// Begins and ends every fault at its time; returns when all are lifted.
///
/// Faults of one target follow on each other: one that would begin during another waits for its end.
pub fn carry_out(rig: &Rig, schedule: &[TimedFault]) -> Outcome {
    let start = Instant::now();
    let outcome = Mutex::new(Outcome::default());
    let turns: HashMap<String, Mutex<()>> =
        schedule.iter().map(|timed| (target(&timed.fault), Mutex::new(()))).collect();
    thread::scope(|scope| {
        for timed in schedule {
            let (turns, outcome) = (&turns, &outcome);
            scope.spawn(move || {
                wait_until(start + Duration::from_millis(timed.at));
                let _turn =
                    turns[&target(&timed.fault)].lock().unwrap_or_else(PoisonError::into_inner);
                let done = carry_out_one(rig, timed);
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(fired) => outcome.fired.extend(fired),
                    Err(error) => outcome.broken.push(format!("{}: {error:#}", timed.fault)),
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn carry_out_one(rig: &Rig, timed: &TimedFault) -> anyhow::Result<Option<(Process, Point)>> {
    let begun = rig.apply(&timed.fault);
    wait_until(Instant::now() + Duration::from_millis(timed.lasts));
    // Also when it was not begun: half of it may have been.
    rig.lift(&timed.fault)?;
    begun?;
    Ok(match timed.fault {
        Fault::Point(process, point, _) => {
            rig.service(process)?.has_fired(point).then_some((process, point))
        }
        _ => None,
    })
}

/// What two faults must not do to at the same time.
fn target(fault: &Fault) -> String {
    match fault {
        Fault::Kill(process) | Fault::Pause(process) => process.to_string(),
        Fault::Link(link, _) => format!("{link:?}"),
        Fault::Point(process, point, _) => format!("{process} {}", point.name()),
        Fault::FullDisk(disk) => format!("disk {disk:?}"),
        Fault::Poison { .. } => "the log".to_owned(),
        Fault::ClockShift { process, .. } => format!("clock of {process}"),
    }
}

fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}
