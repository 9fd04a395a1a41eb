//! Every point between two steps is met, with an end, a stall and a failure there.

use chaos::points::{cases, run};
use std::io::Write as _;
use testkit::stack::Engines;

fn nothing_is_lost_or_doubled_at_any_point(engines: Engines) -> anyhow::Result<()> {
    if !engines.available() {
        return Ok(());
    }
    let tell = |text: &str| {
        writeln!(std::io::stdout().lock(), "{text}").ok();
    };
    let matrix = run(engines, &cases(engines), tell)?;
    assert_eq!(matrix.cases.len(), cases(engines).len());
    assert!(matrix.findings.is_empty(), "{:?}", matrix.findings);
    Ok(())
}

#[test]
fn every_point_on_embedded_engines() -> anyhow::Result<()> {
    nothing_is_lost_or_doubled_at_any_point(Engines::Embedded)
}

#[test]
fn every_point_on_servers() -> anyhow::Result<()> {
    nothing_is_lost_or_doubled_at_any_point(Engines::Servers)
}
