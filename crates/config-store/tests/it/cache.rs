//! What the caches promise on every engine.

use crate::store::{in_parallel, metric};
use crate::support::{Database, ORGANIZATION, at, new_key, pepper, wait_for};
use anyhow::Result;
use config_store::store::CHANGES_PAGE;
use config_store::{AuthError, CacheOptions, ConfigError, ConfigStore, KeyCache, Scope};
use service_kit::clock::FixedClock;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A cache with its follower, which stops when this is dropped.
pub(crate) struct Followed {
    pub(crate) cache: KeyCache,
    pub(crate) clock: FixedClock,
    shutdown: CancellationToken,
    follower: JoinHandle<()>,
}

impl Followed {
    /// Returns when the follower has looked at the log for the first time.
    pub(crate) async fn start(store: &ConfigStore) -> Self {
        let clock = FixedClock::new(at(0));
        let cache = new_cache(store, &clock);
        let shutdown = CancellationToken::new();
        let follower = tokio::spawn(cache.clone().follow_changes(shutdown.clone()));
        let followed = Self { cache, clock, shutdown, follower };
        wait_for("the first look at the log", async || followed.cache.confirmed_at().is_some())
            .await;
        followed
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.follower.await?)
    }

    /// What `text` is answered at the clock's time, for sending events.
    pub(crate) async fn answer(&self, text: &str) -> Result<String, AuthError> {
        use service_kit::clock::Clock;
        let organization = self.cache.authenticate(text, Scope::Ingest, self.clock.now()).await?;
        Ok(organization.organization_id.clone())
    }
}

pub(crate) fn new_cache(store: &ConfigStore, clock: &FixedClock) -> KeyCache {
    let clock = Arc::new(clock.clone());
    KeyCache::new(store.clone(), pepper(), CacheOptions::default(), clock)
}

pub(crate) async fn a_key_is_let_in_until_it_expires_and_for_its_scopes(
    database: Database,
) -> Result<()> {
    let store = database.store_with_organization().await?;
    let cache = new_cache(&store, &FixedClock::new(at(0)));
    let (key, text) = store
        .create_api_key(ORGANIZATION, &pepper(), "k", &[Scope::Ingest], Some(at(60)), at(0))
        .await?;
    let organization = cache.authenticate(&text, Scope::Ingest, at(59)).await?;
    assert_eq!(organization.organization_id, ORGANIZATION);
    assert_eq!(organization.key_id, key.key_id);
    let refusal = async |text: &str, needed, at| {
        cache.authenticate(text, needed, at).await.expect_err("it is refused")
    };
    assert!(matches!(refusal(&text, Scope::Ingest, at(60)).await, AuthError::Expired));
    assert!(matches!(
        refusal(&text, Scope::Read, at(1)).await,
        AuthError::MissingScope { needed: Scope::Read }
    ));
    assert!(matches!(refusal(&text[1..], Scope::Ingest, at(1)).await, AuthError::Malformed));
    assert!(matches!(refusal("", Scope::Ingest, at(1)).await, AuthError::Malformed));

    // A key of a deployment with another database, and one with another pepper.
    let elsewhere = Database::sqlite()?;
    let elsewhere = elsewhere.store_with_organization().await?;
    let (_, unknown) = new_key(&elsewhere).await?;
    assert!(matches!(refusal(&unknown, Scope::Ingest, at(1)).await, AuthError::Unknown));
    let other_pepper = "another pepper, as long".parse()?;
    let (_, wrong) = store
        .create_api_key(ORGANIZATION, &other_pepper, "k", &[Scope::Ingest], None, at(0))
        .await?;
    assert!(matches!(refusal(&wrong, Scope::Ingest, at(1)).await, AuthError::WrongSecret));
    let (revoked_id, revoked) = new_key(&store).await?;
    store.revoke_api_key(ORGANIZATION, &revoked_id, at(0)).await?;
    assert!(matches!(refusal(&revoked, Scope::Ingest, at(1)).await, AuthError::Revoked));
    // Asked once more, from memory.
    cache.authenticate(&text, Scope::Ingest, at(59)).await?;
    Ok(())
}

pub(crate) async fn a_revocation_is_seen(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    let followed = Followed::start(&store).await;
    let (key_id, text) = new_key(&store).await?;
    followed.answer(&text).await?;
    // Another process revokes it.
    database.store().await?.revoke_api_key(ORGANIZATION, &key_id, at(1)).await?;
    wait_for("the revocation", async || {
        matches!(followed.answer(&text).await, Err(AuthError::Revoked))
    })
    .await;
    followed.stop().await
}

pub(crate) async fn a_new_metric_is_seen_and_an_archived_one_is_gone(
    database: Database,
) -> Result<()> {
    let store = database.store_with_organization().await?;
    let followed = Followed::start(&store).await;
    let has = async |code: &str| {
        let catalog = followed.cache.metric_catalog(ORGANIZATION).await;
        catalog.expect("the database is there").get(code).is_some()
    };
    assert!(!has("calls").await);
    store.create_billable_metric(ORGANIZATION, &metric("calls"), at(1)).await?;
    wait_for("the new metric", async || has("calls").await).await;
    store.archive_billable_metric(ORGANIZATION, "calls", at(2)).await?;
    wait_for("the archived metric to go", async || !has("calls").await).await;
    followed.stop().await
}

pub(crate) async fn a_burst_of_changes_beyond_a_page_is_seen(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    let followed = Followed::start(&store).await;
    let (key_id, text) = new_key(&store).await?;
    followed.answer(&text).await?;
    store.revoke_api_key(ORGANIZATION, &key_id, at(1)).await?;
    in_parallel(CHANGES_PAGE, &store, |store, number| async move {
        let id = format!("c{number}");
        store.upsert_customer(ORGANIZATION, &id, "A customer", at(1)).await?;
        Ok(())
    })
    .await?;
    wait_for("the revocation", async || {
        matches!(followed.answer(&text).await, Err(AuthError::Revoked))
    })
    .await;
    followed.stop().await
}

pub(crate) async fn cached_answers_outlive_the_database_up_to_the_limit(
    database: Database,
) -> Result<()> {
    let store = database.store_with_organization().await?;
    store.create_billable_metric(ORGANIZATION, &metric("calls"), at(0)).await?;
    let followed = Followed::start(&store).await;
    let ((_, known), (_, unseen)) = (new_key(&store).await?, new_key(&store).await?);
    followed.answer(&known).await?;
    followed.cache.metric_catalog(ORGANIZATION).await?;

    store.close().await;
    let limit = CacheOptions::default().stale_for;
    for age in [Duration::ZERO, limit] {
        followed.clock.set(at(0) + age);
        assert_eq!(followed.answer(&known).await?, ORGANIZATION, "{age:?}");
        let catalog = followed.cache.metric_catalog(ORGANIZATION).await?;
        assert!(catalog.get("calls").is_some(), "{age:?}");
        // It may be a right key: that is not a refusal.
        let error = followed.answer(&unseen).await.unwrap_err();
        assert!(matches!(error, AuthError::Unavailable(_)), "{error:?}");
    }
    followed.clock.set(at(0) + limit + Duration::from_millis(1));
    let error = followed.answer(&known).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable(_)), "{error:?}");
    let error = followed.cache.metric_catalog(ORGANIZATION).await.unwrap_err();
    assert!(matches!(error, ConfigError::Unavailable { .. }), "{error:?}");
    followed.stop().await
}
