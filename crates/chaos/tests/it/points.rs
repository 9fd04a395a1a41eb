//! Every point between two steps is met, with an end, a stall and a failure there.

use chaos::points::{cases, run};
use std::io::Write as _;
use testkit::stack::Engines;

fn nothing_is_lost_or_doubled_at_any_point(engines: Engines) {
    if !engines.available() {
        return;
    }
    let tell = |text: &str| {
        writeln!(std::io::stdout().lock(), "{text}").ok();
    };
    let matrix = run(engines, &cases(engines), tell).unwrap();
    assert_eq!(matrix.cases.len(), cases(engines).len());
    assert!(matrix.findings.is_empty(), "{:?}", matrix.findings);
}

#[test]
fn every_point_on_embedded_engines() {
    nothing_is_lost_or_doubled_at_any_point(Engines::Embedded);
}

#[test]
fn every_point_on_servers() {
    nothing_is_lost_or_doubled_at_any_point(Engines::Servers);
}
