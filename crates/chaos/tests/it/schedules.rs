//! Schedules whose seeds are fixed, so that what fails here fails on every machine.

use chaos::report::{self, Trials};
use chaos::trial::{Plan, name_of, run};
use std::time::Duration;
use testkit::stack::{Engines, binary};

const SEEDS: [u64; 5] = [101, 102, 103, 104, 105];
const DURATION: Duration = Duration::from_secs(30);

fn every_accepted_event_is_counted_exactly_once(engines: Engines) -> anyhow::Result<()> {
    if !engines.available() {
        return Ok(());
    }
    let trials: Vec<_> =
        SEEDS.iter().map(|seed| run(&Plan::new(engines, *seed, DURATION))).collect();
    let all = Trials { trials: &trials, random_seeds: false };
    all.write(&binary("chaos").with_file_name("chaos-report"), name_of(engines))?;
    let lines: Vec<_> = trials.iter().map(report::line).collect();
    assert!(all.passed(), "{}", lines.join("\n"));
    Ok(())
}

#[test]
fn five_schedules_on_embedded_engines() -> anyhow::Result<()> {
    every_accepted_event_is_counted_exactly_once(Engines::Embedded)
}

#[test]
fn five_schedules_on_three_brokers() -> anyhow::Result<()> {
    every_accepted_event_is_counted_exactly_once(Engines::Servers)
}
