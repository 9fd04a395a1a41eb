//! A part of the events that a disk has damaged: nothing is billed without it, and the documented way
//! (docs/operations.md) brings its rows back.

use crate::bench::{Bench, event, failed};
use chrono::TimeDelta;
use local_engines::clickhouse::EmbeddedClickHouse;
use metering::UsageEvent;
use operator::reconcile::text::text;
use std::path::{Path, PathBuf};
use testkit::stack::binary;

/// A store with events of two months, each in one part that no merge has made: the sources of a
/// merge stay for 8 minutes and would be taken in its place.
struct Store {
    engine: EmbeddedClickHouse,
    bench: Bench,
    bill: Vec<String>,
    audit: Vec<String>,
}

fn store() -> Store {
    let engine = EmbeddedClickHouse::start_for_tests(&binary("embedded-clickhouse")).unwrap();
    let mut bench = Bench::embedded_on(&engine);
    let events: Vec<_> = (0..60).map(|n| event(format!("t{n:02}"), n)).collect();
    let earlier = |event: &UsageEvent<'static>| UsageEvent {
        timestamp: event.timestamp - TimeDelta::days(31),
        transaction_id: format!("{}-earlier", event.transaction_id).into(),
        ..event.clone()
    };
    bench.publish(&events.iter().map(earlier).collect::<Vec<_>>());
    bench.consume();
    bench.publish(&events);
    bench.publish(&events[..7]);
    bench.consume();
    // Started anew before and after the bill is read: marks that were read once are kept in memory.
    engine.kill().unwrap();
    engine.start_again().unwrap();
    let (bill, audit) = (bench.bill(), audit(&bench));
    assert_eq!(bill.len(), 120);
    engine.kill().unwrap();
    engine.start_again().unwrap();
    Store { engine, bench, bill, audit }
}

fn audit(bench: &Bench) -> Vec<String> {
    bench.lines("SELECT * FROM ingest_batches FINAL ORDER BY ALL")
}

impl Store {
    /// The name of the newest month's only part, and the file that says where its rows are.
    fn part(&self) -> (String, PathBuf) {
        let sql = "SELECT name, path FROM system.parts WHERE database = currentDatabase() AND table = 'usage_events' \
                   AND partition IN (SELECT max(partition) FROM system.parts WHERE database = currentDatabase() AND table = 'usage_events')";
        let lines = self.bench.lines(sql);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (name, path) = lines[0].split_once(' ').unwrap();
        let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
        let mut marks = files.filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with("data.cmrk")
        });
        (name.to_owned(), marks.next().unwrap())
    }

    /// Replays the log, and compares with what was there before the damage.
    fn is_restored_by_a_replay(&self) {
        let report = self.bench.reconcile();
        assert_eq!(failed(&report), ["every_event_billed"], "{}", text(&report));
        assert_eq!((report.total.difference.as_str(), self.bench.bill().len()), ("60", 60));
        assert!(text(&report).contains("What to do: run `tallymark replay"));
        for _ in 0..2 {
            assert_eq!(self.bench.replay(), [120, 7, 0, 0]);
            assert_eq!(self.bench.bill(), self.bill);
            assert_eq!(audit(&self.bench), self.audit);
            let report = self.bench.reconcile();
            assert!(report.passed, "{}", text(&report));
        }
    }
}

fn empty(file: &Path) {
    std::fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
}

#[test]
fn a_damaged_part_fails_every_bill_until_the_way_back_was_gone() {
    let store = store();
    let (name, marks) = store.part();
    empty(&marks);
    let error = store.bench.bill_error();
    assert!(error.contains("CORRUPTED_DATA") && error.contains(&name), "{error}");
    store.engine.kill().unwrap();
    let refused = store.engine.start_again().unwrap_err().to_string();
    store.bench.bill_error();
    for command in ["`tallymark replay --from earliest`", "`tallymark reconcile`"] {
        assert!(refused.contains(command), "{refused}");
    }
    let flag = refused.split_once("touch '").unwrap().1.split_once('\'').unwrap().0;
    std::fs::write(flag, "").unwrap();
    store.engine.start_again().unwrap();
    store.is_restored_by_a_replay();
}
