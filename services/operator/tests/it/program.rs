//! The program as an operator runs it, beside a running stack on embedded engines.

use std::path::Path;
use std::process::{Command, Output};
use testkit::ledger::Ledger;
use testkit::stack::{Engines, Stack, binary};

fn tallymark(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("tallymark"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    for name in ["KAFKA_BROKERS", "CLICKHOUSE_URL", "CLICKHOUSE_PASSWORD"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_commands_work_beside_a_running_stack() {
    let mut stack = Stack::start(Engines::Embedded, &[]);
    let mut ledger = Ledger::default();
    let now = testkit::event::now_ms();
    let events: Vec<_> =
        (0..40).map(|n| testkit::event::Event::tokens(format!("t{n}"), now, n)).collect();
    stack.sender().send(&events, &mut ledger);
    stack.sender().send(&events, &mut ledger);
    ledger.await_exactly_once(&stack.reader());
    let directory = stack.data_dir().to_owned();

    let (from, to) = (rfc3339(now - 3_600_000), rfc3339(now - 1_800_000));
    let past = tallymark(&directory, &["reconcile", "--from", &from, "--to", &to, "--json", "-"]);
    assert_eq!(past.status.code(), Some(0), "{}", said(&past));
    let report: serde_json::Value = serde_json::from_slice(&past.stdout).unwrap();
    assert_eq!((&report["passed"], &report["total"]["difference"]), (&true.into(), &"0".into()));
    let open = tallymark(&directory, &["reconcile", "--from", &from, "--to", &rfc3339(now)]);
    assert_eq!(open.status.code(), Some(2), "{}", said(&open));
    assert!(said(&open).contains("not settled"), "{}", said(&open));

    let dry = tallymark(&directory, &["replay", "--from", "earliest", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{}", said(&dry));
    let replayed = tallymark(&directory, &["replay", "--from", &from]);
    assert_eq!(replayed.status.code(), Some(0), "{}", said(&replayed));
    assert!(said(&replayed).contains("partition 0, offsets 0 up to "), "{}", said(&replayed));
    ledger.await_exactly_once(&stack.reader());

    let none = tallymark(&directory, &["dead-letters", "list"]);
    assert_eq!(
        (none.status.code(), none.stdout.as_slice()),
        (Some(0), b"no dead letters\n".as_slice())
    );
    let retry = ["dead-letters", "retry", "usage.events/1/0/0"];
    let running = tallymark(&directory, &retry);
    assert_eq!(running.status.code(), Some(2), "{}", said(&running));
    assert!(said(&running).contains("stop it"), "{}", said(&running));
    assert!(stack.stop(), "{}", stack.log_tail());
    let absent = tallymark(&directory, &retry);
    assert_eq!(absent.status.code(), Some(1), "{}", said(&absent));
    assert!(said(&absent).contains("there is no such dead letter"), "{}", said(&absent));
    stack.start_again(&[]);
    ledger.await_exactly_once(&stack.reader());
}

fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339()
}
