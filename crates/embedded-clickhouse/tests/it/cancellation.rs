//! A statement whose client has gone is stopped, unless it changes something.

use crate::support::database;
use std::time::Duration;

const ENDLESS: &str = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)";

#[tokio::test]
async fn a_select_stops_when_its_client_goes() {
    let Some(database) = database().await else { return };
    let of = [("database", database.name.as_str())];
    let running = format!(
        "SELECT count() FROM system.processes WHERE current_database = '{}' AND query NOT LIKE '%processes%'",
        database.name
    );
    // Before the first row, and in the middle of a long result that is not read.
    for sql in [
        ENDLESS,
        "SELECT number, sleepEachRow(0.001) FROM numbers(100000000) SETTINGS max_block_size = 100",
    ] {
        let request = database.post(&of, sql);
        tokio::select! {
            answer = request => panic!("it ended: {}", answer.text),
            () = database.eventually(&running, "1\n") => {}
        }
        database.eventually(&running, "0\n").await;
    }
}

#[tokio::test]
async fn a_change_is_finished_without_its_client() {
    let Some(database) = database().await else { return };
    let of = [("database", database.name.as_str())];
    database.ok("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n").await;
    let running = format!(
        "SELECT count() FROM system.processes WHERE current_database = '{}' AND query LIKE 'INSERT%'",
        database.name
    );
    let request =
        database.post(&of, "INSERT INTO t SELECT number + sleepEachRow(0.05) FROM numbers(20)");
    tokio::select! {
        answer = request => panic!("it ended: {}", answer.text),
        () = database.eventually(&running, "1\n") => {}
    }
    database.eventually("SELECT count() FROM t", "20\n").await;
}

#[tokio::test]
async fn the_reader_cannot_take_the_services_places() {
    let Some(database) = database().await else { return };
    let hogs: Vec<_> = (0..embedded_clickhouse::config::READER_STATEMENTS_MAX + 2)
        .map(|_| {
            let (user, password) =
                (database.engine.reader_user(), database.engine.reader_password());
            let request =
                reqwest::Client::new().post(database.engine.url()).basic_auth(user, Some(password));
            tokio::spawn(request.body("SELECT sleep(3), sleep(2.9), sleep(2.8)").send())
        })
        .collect();
    let running =
        "SELECT count() >= 6 FROM system.processes WHERE query LIKE 'SELECT sleep(3), sleep%'";
    database.eventually(running, "1\n").await;
    let prompt = tokio::time::timeout(Duration::from_secs(60), database.ok("SELECT 1")).await;
    assert_eq!(prompt.unwrap(), "1\n");
    assert_eq!(
        database
            .ok("SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(3), sleep%'")
            .await,
        "6\n"
    );
    for hog in hogs {
        hog.abort();
    }
}
