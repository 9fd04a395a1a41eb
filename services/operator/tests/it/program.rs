//! The program as an operator runs it, beside a stack on embedded engines.

use crate::bench::record;
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions};
use event_log::{EventLogProducer as _, RecordBatch};
use metering::identity::partition_of;
use service_kit::clock::SystemClock;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use testkit::event::{Event, now_ms};
use testkit::ledger::Ledger;
use testkit::stack::{Engines, Stack, binary};
use testkit::wait;

/// As `standalone` makes the embedded log.
const PARTITIONS: u16 = 4;

fn tallymark(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("tallymark"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    for name in ["KAFKA_BROKERS", "CLICKHOUSE_URL", "CLICKHOUSE_PASSWORD"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let Output { stdout, stderr, .. } = output;
    format!("{}\n{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, text: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(text), "{}", said(output));
}

fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339()
}

fn stack_with_events(ledger: &mut Ledger) -> Stack {
    let stack = Stack::start(Engines::Embedded, &[]);
    let events: Vec<_> = (0..40).map(|n| Event::tokens(format!("t{n}"), now_ms(), n)).collect();
    stack.sender().send(&events, ledger);
    stack.sender().send(&events, ledger);
    ledger.await_exactly_once(&stack.reader());
    stack
}

#[test]
fn a_period_is_proved_and_replayed_beside_a_running_stack() {
    let mut ledger = Ledger::default();
    let stack = stack_with_events(&mut ledger);
    let directory = stack.data_dir();
    let (from, to) = (rfc3339(now_ms() - 3_600_000), rfc3339(now_ms() + 1));
    let open = tallymark(directory, &["reconcile", "--from", &from, "--to", &to]);
    assert_ends(&open, 2, "not settled");
    let settled = ["reconcile", "--from", &from, "--to", &to, "--settle", "1ms", "--json", "-"];
    let proved = wait::until("the period is settled", || {
        let proved = tallymark(directory, &settled);
        if proved.status.code() == Some(2) { Err(said(&proved)) } else { Ok(proved) }
    });
    assert_ends(&proved, 0, "");
    let report: serde_json::Value = serde_json::from_slice(&proved.stdout).unwrap();
    let total = &report["total"];
    assert_eq!(
        (&total["difference"], &total["billed"], &total["repeats"]),
        (&"0".into(), &40.into(), &40.into())
    );
    let table = tallymark(directory, &settled[..7]);
    assert_ends(&table, 0, "PASSED: the bill is what was accepted.");

    let dry = tallymark(directory, &["replay", "--from", "earliest", "--dry-run"]);
    assert_ends(&dry, 0, "to insert");
    let replayed = tallymark(directory, &["replay", "--from", &from]);
    assert_ends(&replayed, 0, "partition 0, offsets 0 up to ");
    ledger.await_exactly_once(&stack.reader());
}

#[test]
fn a_dead_letter_is_sent_again_while_the_stack_is_stopped() {
    let mut ledger = Ledger::default();
    let mut stack = stack_with_events(&mut ledger);
    let directory = stack.data_dir().to_owned();
    let list = ["dead-letters", "list"];
    assert_ends(&tallymark(&directory, &list), 0, "no dead letters");
    assert!(stack.stop(), "{}", stack.log_tail());

    // A producer of somebody else puts an event where it does not belong.
    let (_, key, value) = record(&crate::bench::event("misplaced", 7));
    let elsewhere = (partition_of(&key, PARTITIONS) + 1) % PARTITIONS;
    publish(&directory, elsewhere, &key, &value);
    stack.start_again(&[]);
    let parked = wait::until("the record is parked", || {
        let listed = tallymark(&directory, &list);
        let text = String::from_utf8(listed.stdout.clone()).unwrap();
        let name = text.split_whitespace().find(|word| word.starts_with("usage.events/"));
        name.map(str::to_owned).ok_or_else(|| said(&listed))
    });
    let shown = tallymark(&directory, &["dead-letters", "show", &parked]);
    assert_ends(&shown, 0, "wrong_partition");
    assert_ends(&shown, 0, "misplaced");

    let retry = ["dead-letters", "retry", &parked];
    assert_ends(&tallymark(&directory, &retry), 2, "stop it");
    assert!(stack.stop(), "{}", stack.log_tail());
    assert_ends(&tallymark(&directory, &retry), 0, "1 published, 0 not");
    assert_ends(&tallymark(&directory, &retry), 0, "1 published, 0 not");
    let absent = tallymark(&directory, &["dead-letters", "retry", "usage.events/1/0/999"]);
    assert_ends(&absent, 1, "there is no such dead letter");
    stack.start_again(&[]);
    wait::until("both copies are read, and one is billed", || {
        let reader = stack.reader();
        let read = reader.number("SELECT sum(records) FROM ingest_batches FINAL")?;
        let billed = reader
            .number("SELECT count() FROM billable_events WHERE transaction_id = 'misplaced'")?;
        if (read, billed) == (83, 1) {
            Ok(())
        } else {
            Err(format!("{read} read, {billed} billed"))
        }
    });
}

/// The way back of docs/operations.md. Copies that come afterwards are told apart as before: the
/// consumer was not running while the ids of the damaged part were gone.
#[test]
fn a_damaged_store_is_restored_while_the_stack_is_stopped() {
    let mut ledger = Ledger::default();
    let mut stack = stack_with_events(&mut ledger);
    let directory = stack.data_dir().to_owned();
    let parts = stack
        .reader()
        .query("SELECT path FROM system.parts WHERE table = 'usage_events' FORMAT TSV")
        .unwrap();
    assert!(stack.stop(), "{}", stack.log_tail());
    for part in parts.lines() {
        for file in std::fs::read_dir(part).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("data.cmrk") {
                std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
            }
        }
    }
    let replay = ["replay", "--from", "earliest"];
    let refused = tallymark(&directory, &replay);
    assert_ends(&refused, 2, "`tallymark replay --from earliest`");
    let text = said(&refused);
    let flag = text.split_once("touch '").unwrap().1.split_once('\'').unwrap().0;
    std::fs::write(flag, "").unwrap();
    assert_ends(&tallymark(&directory, &replay), 0, "partition 0, offsets 0 up to ");
    let (from, to) = (rfc3339(now_ms() - 3_600_000), rfc3339(now_ms()));
    let settled = ["reconcile", "--from", &from, "--to", &to, "--settle", "1ms"];
    assert_ends(&tallymark(&directory, &settled), 0, "PASSED: the bill is what was accepted.");
    stack.start_again(&[]);
    let changed: Vec<_> =
        (0..40).map(|n| Event::tokens(format!("t{n}"), now_ms(), n + 1)).collect();
    stack.sender().send(&changed, &mut Ledger::default());
    wait::until("the changed copies are set aside", || {
        let sql = "SELECT count() FROM usage_event_conflicts FINAL";
        match stack.reader().number(sql)? {
            40 => Ok(()),
            found => Err(found.to_string()),
        }
    });
    ledger.await_exactly_once(&stack.reader());
}

fn publish(data_dir: &Path, partition: u16, key: &[u8], value: &[u8]) {
    let options = EmbeddedLogOptions::new(data_dir.join("log"), PARTITIONS, Arc::new(SystemClock));
    let log = EmbeddedLog::open(options).unwrap();
    let mut batch = RecordBatch::default();
    batch.push(|out| out.extend_from_slice(key), |_| partition, |out| out.extend_from_slice(value));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(log.producer().publish(batch)).unwrap();
}

/// The job of docker-compose.yml: it proves, it answers, and it ends in order.
#[test]
fn the_job_proves_again_and_again() {
    let mut ledger = Ledger::default();
    let stack = stack_with_events(&mut ledger);
    let address_file = stack.data_dir().join("reconcile.address");
    let mut command = Command::new(binary("tallymark"));
    command
        .args(["reconcile", "--every", "200ms", "--period", "24h", "--settle", "1ms"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .arg("--address-file")
        .arg(&address_file)
        .arg("--data-dir")
        .arg(stack.data_dir());
    let log = stack.data_dir().join("reconcile.log");
    let mut job =
        local_engines::process::ManagedProcess::spawn(command, "tallymark", &log).unwrap();
    let get = |path: &str| {
        let address = std::fs::read_to_string(&address_file).map_err(|error| error.to_string())?;
        let answer = http_get(&format!("http://{}{path}", address.trim()))?;
        Ok::<_, String>(answer)
    };
    wait::until("two runs have passed", || {
        let (status, _) = get("/ready")?;
        let (_, metrics) = get("/metrics")?;
        let passed = metrics
            .lines()
            .find_map(|line| {
                line.strip_prefix(r#"tallymark_reconcile_runs_total{outcome="passed"} "#)
            })
            .and_then(|count| count.parse::<u32>().ok());
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if status == 200 && passed >= Some(2) {
            Ok(())
        } else {
            Err(format!("{status} {passed:?} {said}"))
        }
    });
    assert_eq!(get("/health").unwrap().0, 200);
    let (_, metrics) = get("/metrics").unwrap();
    assert!(metrics.contains("tallymark_reconcile_difference_records 0"), "{metrics}");
    assert!(metrics.contains("tallymark_reconcile_last_success_timestamp_seconds 1"), "{metrics}");
    assert!(job.stop(std::time::Duration::from_secs(30)).unwrap().success());
}

/// Status and body of a GET.
fn http_get(url: &str) -> Result<(u16, String), String> {
    use std::io::{Read as _, Write as _};
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(address).map_err(|error| error.to_string())?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or("no status")?, answer))
}
