//! The local Postgres server itself: it keeps what was committed, and does what it is told; and what the store makes of it.

use crate::cache::Followed;
use crate::support::{Database, ORGANIZATION, at, new_key, wait_for};
use anyhow::Result;
use config_store::{AuthError, ConfigError, ConfigStore, PoolOptions};
use local_engines::postgres::{Postgres, PostgresError, PostgresOptions};
use sqlx::{Connection, Executor, PgConnection};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn start(data_dir: &Path) -> Result<Option<Postgres>> {
    match Postgres::start(PostgresOptions { data_dir: data_dir.to_owned() }) {
        Err(error @ PostgresError::NotInstalled) => {
            Ok(local_engines::require_or_skip("Postgres", Err(error)))
        }
        outcome => Ok(Some(outcome?)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_survives_a_kill_and_a_new_start() -> Result<()> {
    // Closed to other users, as home directories are.
    let root = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir()?;
    let data_dir = root.path().join("postgres");
    let Some(mut server) = start(&data_dir)? else { return Ok(()) };
    let url = server.url("config");
    let password = url.split([':', '@']).nth(2).expect("a URL with a password").to_owned();
    assert!(!format!("{server:?}").contains(&password));
    server.create_database("config")?;
    server.create_database("config")?;
    let database = Database::at(&url);
    let store = database.store_with_organization().await?;
    let followed = Followed::start(&store).await;
    let (first_id, first) = new_key(&store).await?;
    followed.answer(&first).await?;

    server.kill()?;
    wait_for("the database to be away", async || store.latest_change().await.is_err()).await;
    followed.answer(&first).await?;
    server.restart()?;
    assert_eq!(server.url("config"), url);
    // The same pool finds the server again, and the follower with it.
    store.revoke_api_key(ORGANIZATION, &first_id, at(1)).await?;
    wait_for("the revocation", async || {
        matches!(followed.answer(&first).await, Err(AuthError::Revoked))
    })
    .await;
    followed.stop().await?;
    store.close().await;

    server.stop()?;
    drop(server);
    let Some(server) = start(&data_dir)? else { return Ok(()) };
    let store = ConfigStore::connect(&server.url("config"), PoolOptions::default()).await?;
    assert_eq!(store.list_api_keys(ORGANIZATION).await?.len(), 1, "the data was used again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_answers_nobody_until_it_is_resumed() -> Result<()> {
    let root = tempfile::tempdir()?;
    let Some(server) = start(&root.path().join("postgres"))? else { return Ok(()) };
    server.create_database("config")?;
    let store = Database::at(&server.url("config")).store_with_organization().await?;
    let followed = Followed::start(&store).await;
    let ((_, known), (_, unseen)) = (new_key(&store).await?, new_key(&store).await?);
    followed.answer(&known).await?;

    server.pause()?;
    let error = followed.answer(&unseen).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable(_)), "{error:?}");
    followed.answer(&known).await?;
    server.resume()?;
    wait_for("the lookup", async || followed.answer(&unseen).await.is_ok()).await;
    followed.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_answer_again_are_replaced() -> Result<()> {
    let root = tempfile::tempdir()?;
    let Some(server) = start(&root.path().join("postgres"))? else { return Ok(()) };
    server.create_database("config")?;
    let url = server.url("config");
    Database::at(&url).store_with_organization().await?;
    let limit = Duration::from_secs(2);
    let options =
        PoolOptions { max_connections: 4, acquire_timeout: limit, operation_timeout: limit };
    let store = ConfigStore::connect(&url, options).await?;

    // As in a network partition that nobody is told of: every connection of the pool is in the
    // middle of a statement when the other side falls silent.
    let mut other = PgConnection::connect(&url).await?;
    other.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE").await?;
    let waiting = (0..options.max_connections).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.organization(ORGANIZATION).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let mut stopped: Vec<i32> = Vec::new();
    wait_for("all statements to wait", async || {
        let pids = sqlx::query_scalar("SELECT pid FROM pg_locks WHERE NOT granted");
        stopped = pids.fetch_all(&mut other).await.expect("this connection is fine");
        stopped.len() == waiting.len()
    })
    .await;
    for pid in stopped {
        let script = format!("kill -STOP {pid}");
        assert!(Command::new("sh").args(["-c", &script]).status()?.success());
    }
    for outcome in waiting {
        assert!(matches!(outcome.await?, Err(ConfigError::TimedOut { .. })));
    }
    other.execute("ROLLBACK").await?;
    wait_for("new connections", async || store.organization(ORGANIZATION).await.is_ok()).await;
    Ok(())
}

#[test]
fn a_second_server_on_the_same_data_is_refused_with_the_servers_reason() -> Result<()> {
    let root = tempfile::tempdir()?;
    let data_dir = root.path().join("postgres");
    let Some(_server) = start(&data_dir)? else { return Ok(()) };
    let error = Postgres::start(PostgresOptions { data_dir }).unwrap_err();
    assert!(error.to_string().contains("postmaster.pid"), "{error}");
    Ok(())
}
