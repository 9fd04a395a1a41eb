//! A Postgres that is cut off or silent, behind a cache that goes on.

use crate::cache::Followed;
use crate::store::metric;
use crate::support::{Database, ORGANIZATION, at, new_key, shared_server, wait_for};
use anyhow::Result;
use config_store::{AuthError, ConfigStore, LookupError, PoolOptions};
use std::net::{Ipv4Addr, SocketAddr};
use testkit::proxy::{Fault, Proxy};

/// A proxy that may be used and dropped on a runtime's threads, which its own runtime forbids.
#[derive(Debug)]
struct Link(Option<Proxy>);

impl Link {
    fn to_port(port: u16) -> Result<Self> {
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = std::thread::spawn(move || Proxy::start(upstream)).join().expect("no panic")?;
        Ok(Self(Some(proxy)))
    }

    fn proxy(&self) -> &Proxy {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let proxy = self.0.take();
        std::thread::spawn(move || drop(proxy)).join().expect("no panic");
    }
}

/// A store behind a proxy, and one on the server itself for changes meanwhile.
async fn linked(name: &str) -> Result<Option<(Link, ConfigStore, ConfigStore)>> {
    let Some((database, server)) = Database::postgres(name)?.zip(shared_server()) else {
        return Ok(None);
    };
    let direct = database.store_with_organization().await?;
    let link = Link::to_port(server.port())?;
    let (from, to) = (server.port().to_string(), link.proxy().address().port().to_string());
    let url = database.url.replace(&format!(":{from}/"), &format!(":{to}/"));
    assert_ne!(url, database.url);
    let store = ConfigStore::connect(&url, PoolOptions::default()).await?;
    Ok(Some((link, store, direct)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_catches_up() -> Result<()> {
    let Some((link, store, direct)) = linked("cut_off").await? else { return Ok(()) };
    let followed = Followed::start(&store).await;
    let (revoked_id, revoked) = new_key(&direct).await?;
    let ((_, kept), (_, unseen)) = (new_key(&direct).await?, new_key(&direct).await?);
    followed.answer(&revoked).await?;
    followed.answer(&kept).await?;
    assert!(followed.cache.metric_catalog(ORGANIZATION).await?.is_empty());

    link.proxy().set(Fault::Cut);
    direct.revoke_api_key(ORGANIZATION, &revoked_id, at(1)).await?;
    direct.create_billable_metric(ORGANIZATION, &metric("calls"), at(1)).await?;
    wait_for("a lookup to fail", async || followed.answer(&unseen).await.is_err()).await;
    let error = followed.answer(&unseen).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable(_)), "{error:?}");
    // What was known before the cut stays in use, revoked or not.
    followed.answer(&revoked).await?;
    followed.answer(&kept).await?;

    link.proxy().set(Fault::None);
    wait_for("the revocation", async || {
        matches!(followed.answer(&revoked).await, Err(AuthError::Revoked))
    })
    .await;
    wait_for("the new metric", async || {
        let catalog = followed.cache.metric_catalog(ORGANIZATION).await;
        catalog.is_ok_and(|catalog| catalog.get("calls").is_some())
    })
    .await;
    wait_for("new keys to be found", async || followed.answer(&unseen).await.is_ok()).await;
    followed.answer(&kept).await?;
    followed.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_holds_nobody_up_and_is_used_again() -> Result<()> {
    let Some((link, store, direct)) = linked("silent").await? else { return Ok(()) };
    let followed = Followed::start(&store).await;
    let (_, known) = new_key(&direct).await?;
    followed.answer(&known).await?;

    link.proxy().set(Fault::BlackHole);
    // More lookups than there are connections: none of them may be lost to the pool.
    for _ in 0..2 * PoolOptions::default().max_connections {
        let (_, unseen) = new_key(&direct).await?;
        let error = followed.answer(&unseen).await.unwrap_err();
        assert!(
            matches!(error, AuthError::Unavailable(LookupError::TimedOut)),
            "the caller gave up at its budget: {error:?}"
        );
        followed.answer(&known).await?;
    }

    link.proxy().set(Fault::None);
    let (revoked_id, revoked) = new_key(&direct).await?;
    wait_for("new keys to be found", async || followed.answer(&revoked).await.is_ok()).await;
    direct.revoke_api_key(ORGANIZATION, &revoked_id, at(1)).await?;
    wait_for("the revocation", async || {
        matches!(followed.answer(&revoked).await, Err(AuthError::Revoked))
    })
    .await;
    followed.stop().await
}
