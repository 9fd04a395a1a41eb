//! Writes that fail for another reason than a lack of space.

use crate::full_disk::{create_table, log, until};
use crate::process::start;
use crate::support::{BINARY, client};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Longest file of the engine, in blocks of 512 bytes: 1 MiB.
const BLOCKS_MAX: u64 = 2048;

/// A program that runs the engine with files of at most [`BLOCKS_MAX`]. A write beyond that fails with `EFBIG`,
/// because the signal that comes with it is ignored.
fn write_limited(path: &Path) {
    let script =
        format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f {BLOCKS_MAX}\nexec '{BINARY}' \"$@\"\n");
    // Written by a process of its own: a program cannot be executed while a process has it open for writing, as
    // one that another test starts at this moment would.
    let written = Command::new("sh")
        .args(["-c", r#"printf %s "$2" >"$1" && chmod +x "$1""#, "sh"])
        .arg(path)
        .arg(script)
        .status();
    assert!(written.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_before_the_engine_can_go_on_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    write_limited(&program);
    let Some(engine) = start(|options| options.binary = Some(program.clone())) else { return };
    let client = client(&engine).with_validation(false);
    create_table(&client).await.unwrap().unwrap();
    for first in [0, 10, 20] {
        let insert = format!("INSERT INTO t SELECT number FROM numbers({first}, 10)");
        client.query(&insert).execute().await.unwrap();
    }
    // About 2.4 MB, whatever the compression, in one part.
    let beyond = "INSERT INTO t SELECT rand64() FROM numbers(300000)";
    let answer = client.query(beyond).execute().await;
    assert!(answer.is_err(), "what is not in its file was acknowledged");
    until("it ends", async || engine.exit_status().unwrap().is_some()).await;
    assert_eq!(engine.exit_status().unwrap().unwrap().code(), Some(1), "{}", log(&engine));
    assert!(log(&engine).contains("a write to a file of the engine failed"), "{}", log(&engine));
    std::fs::remove_file(&program).unwrap();
    symlink(BINARY, &program).unwrap();
    engine.start_again().unwrap();
    let stored = client.query("SELECT id FROM t ORDER BY id").fetch_all::<u64>().await.unwrap();
    assert_eq!(stored, Vec::from_iter(0..30));
}
