//! Inserts whose outcome is unknown: the answer is lost, the connection is cut, the engine dies.

use crate::engine::{Database, Engine, database, embedded};
use crate::events::{encode, event, position, push, token};
use std::time::Duration;
use testkit::proxy::{Fault, Proxy};
use testkit::wait::PATIENCE;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use usage_store::{EncodedRows, EventRows, InsertToken, Retry, UsageStore};

/// The proxy has a runtime of its own, so it can't be started or dropped within another one.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A proxy in front of the engine of `database`, and the store as seen through it.
fn behind_proxy(database: &Database, insert_timeout: Duration) -> (Proxy, UsageStore) {
    let address =
        database.config.url.strip_prefix("http://").expect("a plain URL").trim_end_matches('/');
    let proxy = Proxy::start(address.parse().expect("an address")).expect("a proxy");
    let mut config = database.config.clone();
    config.url = format!("http://{}", proxy.address());
    config.insert_timeout = insert_timeout;
    (proxy, UsageStore::connect(&config))
}

/// Sends the same bytes until they are confirmed, as the consumer does.
async fn insert_until_confirmed(store: &UsageStore, rows: &EncodedRows, token: &InsertToken) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.insert_events(rows, token).await {
        assert!(Instant::now() < deadline, "not confirmed within {PATIENCE:?}: {error:?}");
        assert_eq!(error.retry, Retry::SameBytes, "{error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `count` events at consecutive offsets from `first` on, each of the value 1, over two months.
fn batch(first: u64, count: u64) -> (EncodedRows, InsertToken) {
    let mut rows = EventRows::default();
    for offset in first..first + count {
        let minutes = i64::try_from(offset % 120).unwrap();
        push(&mut rows, &event(&format!("t{offset}"), minutes, Some("1")), position(offset));
    }
    let rows = rows.finish();
    let token = token(first, first + count - 1, &rows);
    (rows, token)
}

/// The answer to an insert that did land is lost. Its retry is stored once more, and billed once.
#[test]
fn a_lost_answer_neither_loses_nor_doubles() {
    let runtime = runtime();
    let database = runtime.block_on(database("lost_answer"));
    let (proxy, store) = behind_proxy(&database, Duration::from_millis(300));
    runtime.block_on(lose_an_answer(&database, &proxy, &store));
}

async fn lose_an_answer(database: &Database, proxy: &Proxy, store: &UsageStore) {
    database.stop_merges().await;
    let rows = encode(0, &[event("t", 0, Some("1"))]);
    let token = token(0, 0, &rows);
    proxy.set(Fault::HoldInsertAnswers);
    let error = store.insert_events(&rows, &token).await.unwrap_err();
    assert_eq!((error.retry, error.code), (Retry::SameBytes, None), "{error:?}");
    let deadline = Instant::now() + PATIENCE;
    while database.text("SELECT count() FROM usage_events").await != "1\n" {
        assert!(Instant::now() < deadline, "the insert lands though its answer is lost");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.set(Fault::Cut);
    assert!(store.insert_events(&rows, &token).await.is_err());
    proxy.set(Fault::None);
    insert_until_confirmed(store, &rows, &token).await;
    database.expect("SELECT count() > 1 FROM usage_events", &["1"]).await;
    database.expect("SELECT count(), sum(value) FROM billable_events", &["1 1"]).await;
}

/// The engine is killed at various moments of large inserts, and each is sent again to the next one.
#[test]
fn a_killed_engine_neither_loses_nor_doubles() {
    let engine = embedded();
    let runtime = runtime();
    let database = runtime.block_on(Engine::of(&engine).database("killed"));
    for round in 0..6_u32 {
        let (rows, token) = batch(u64::from(round) * 20_000, 20_000);
        // When the fault strikes, not a wait for anything: every moment has to be harmless.
        let moment = Duration::from_millis(1) * 4_u32.pow(round.min(4));
        let insert = async {
            tokio::time::timeout(moment, database.store.insert_events(&rows, &token)).await
        };
        let outcome = runtime.block_on(insert);
        engine.kill().expect("the engine can be killed");
        drop(outcome);
        let unreachable = runtime.block_on(database.store.insert_events(&rows, &token));
        assert_eq!(unreachable.map_err(|error| error.retry), Err(Retry::SameBytes));
        engine.start_again().expect("it starts on its old data without a manual step");
        runtime.block_on(async {
            insert_until_confirmed(&database.store, &rows, &token).await;
            let total = (round + 1) * 20_000;
            let sql = "SELECT count(), uniqExact(transaction_id), sum(value) FROM billable_events";
            database.expect(sql, &[&format!("{total} {total} {total}")]).await;
        });
    }
}

/// The connection is cut at various moments of large inserts: before, within and after the body.
#[test]
fn a_cut_connection_neither_loses_nor_doubles() {
    let runtime = runtime();
    let database = runtime.block_on(database("cut"));
    let (proxy, store) = behind_proxy(&database, Duration::from_secs(60));
    runtime.block_on(cut_inserts(&database, &proxy, &store));
}

async fn cut_inserts(database: &Database, proxy: &Proxy, store: &UsageStore) {
    for round in 0..12_u32 {
        let (rows, token) = batch(u64::from(round) * 5_000, 5_000);
        // When the fault strikes, not a wait for anything: every moment has to be harmless.
        let moment = Duration::from_micros(300) * 2_u32.pow(round.min(7));
        let interrupted = tokio::time::timeout(moment, store.insert_events(&rows, &token)).await;
        proxy.set(Fault::Cut);
        drop(interrupted);
        proxy.set(Fault::None);
        insert_until_confirmed(store, &rows, &token).await;
        let total = (round + 1) * 5_000;
        database
            .expect(
                "SELECT count(), uniqExact(transaction_id), sum(value) FROM billable_events",
                &[&format!("{total} {total} {total}")],
            )
            .await;
    }
}
