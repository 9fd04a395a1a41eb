//! Schedules whose seeds are fixed, so that what fails here fails on every machine.

use chaos::report;
use chaos::trial::{Plan, Verdict, run};
use std::time::Duration;
use testkit::stack::Engines;

const SEEDS: [u64; 5] = [101, 102, 103, 104, 105];
const DURATION: Duration = Duration::from_secs(30);

fn every_accepted_event_is_counted_exactly_once(engines: Engines) {
    if !engines.available() {
        return;
    }
    for seed in SEEDS {
        let trial = run(&Plan::new(engines, seed, DURATION));
        assert_eq!(
            trial.verdict,
            Verdict::Passed,
            "{}\n{:#?}",
            report::line(&trial),
            trial.schedule
        );
    }
}

#[test]
fn five_schedules_on_embedded_engines() {
    every_accepted_event_is_counted_exactly_once(Engines::Embedded);
}

#[test]
fn five_schedules_on_three_brokers() {
    every_accepted_event_is_counted_exactly_once(Engines::Servers);
}
