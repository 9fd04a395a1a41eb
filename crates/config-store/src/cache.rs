//! Who a key belongs to and what an organization bills by, answered from memory.
//!
//! A cached answer is used without asking the database for as long as the follower of the log of
//! changes has confirmed it recently; when the database is away, for up to `stale_for` more.

mod authenticate;
mod follow;
mod followed;

pub use authenticate::{AuthError, AuthenticatedOrganization};
pub use followed::LookupError;

use crate::error::ConfigError;
use crate::key::{Pepper, PresentedKey};
use crate::scope::Scope;
use crate::store::ConfigStore;
use authenticate::CachedKey;
use chrono::{DateTime, Utc};
use follow::Confirmation;
use followed::FollowedCache;
use metering::MetricCatalog;
use service_kit::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Bounds of the caches.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Most keys kept.
    pub keys_max: u64,
    /// Most ids kept that no key has.
    pub unknown_keys_max: u64,
    /// How long an id that no key has is remembered.
    pub unknown_for: Duration,
    /// Most billable metrics kept, of all organizations together.
    pub catalog_metrics_max: u64,
    /// How long an answer is used that the database could not confirm.
    pub stale_for: Duration,
    /// Longest wait for an answer that is not cached.
    pub lookup_budget: Duration,
    /// Time between two looks at the log of changes.
    pub poll_every: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            keys_max: 100_000,
            unknown_keys_max: 10_000,
            unknown_for: Duration::from_secs(10),
            catalog_metrics_max: 500_000,
            stale_for: Duration::from_secs(15 * 60),
            lookup_budget: Duration::from_millis(250),
            poll_every: Duration::from_millis(500),
        }
    }
}

/// Cached keys and metric catalogs. Clones share the caches.
///
/// [`KeyCache::follow_changes`] has to run for as long as the cache is used: it is what makes
/// revocations and new metrics visible.
#[derive(Clone, Debug)]
pub struct KeyCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: ConfigStore,
    pepper: Pepper,
    options: CacheOptions,
    clock: Arc<dyn Clock>,
    keys: FollowedCache<Arc<CachedKey>>,
    catalogs: FollowedCache<Arc<MetricCatalog>>,
    confirmation: Confirmation,
}

impl KeyCache {
    pub fn new(
        store: ConfigStore,
        pepper: Pepper,
        options: CacheOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Two connections stay free for the follower and for changes, however many keys are looked up.
        let lookups = usize::try_from(store.max_connections().saturating_sub(2).max(1))
            .expect("a few connections");
        let lookups = Arc::new(Semaphore::new(lookups));
        let unknown = (options.unknown_keys_max, options.unknown_for);
        let keys = FollowedCache::new(options.keys_max, |_| 1, unknown, Arc::clone(&lookups));
        let metrics = |catalog: &Arc<MetricCatalog>| {
            u32::try_from(catalog.len()).unwrap_or(u32::MAX).saturating_add(1)
        };
        let catalogs = FollowedCache::new(options.catalog_metrics_max, metrics, unknown, lookups);
        let confirmation = Confirmation::new(options.stale_for);
        let shared = Shared { store, pepper, options, clock, keys, catalogs, confirmation };
        Self { shared: Arc::new(shared) }
    }

    /// The organization whose key `plaintext` is, if at `at` the key may do what `needed` says.
    pub async fn authenticate(
        &self,
        plaintext: &str,
        needed: Scope,
        at: DateTime<Utc>,
    ) -> Result<Arc<AuthenticatedOrganization>, AuthError> {
        let presented = PresentedKey::parse(plaintext).ok_or(AuthError::Malformed)?;
        let found = self.key(presented.key_id(), at).await.map_err(AuthError::Unavailable)?;
        authenticate::decide(presented, found.as_deref(), &self.shared.pepper, needed, at)
    }

    /// The billable metrics of an organization.
    pub async fn metric_catalog(
        &self,
        organization_id: &str,
    ) -> Result<Arc<MetricCatalog>, ConfigError> {
        let Shared { store, options, clock, catalogs, confirmation, .. } = &*self.shared;
        let at = clock.now();
        let load = || {
            let (store, organization_id) = (store.clone(), organization_id.to_owned());
            async move { store.metric_catalog(&organization_id).await.map(|c| Some(Arc::new(c))) }
        };
        let is_confirmed = |loaded_at| confirmation.covers(loaded_at, at);
        let found = catalogs
            .get(organization_id, at, options.lookup_budget, is_confirmed, load)
            .await
            .map_err(|error| LookupError::into_config_error(error, options.lookup_budget))?;
        Ok(found.unwrap_or_default())
    }

    /// Follows the log of changes until `shutdown`, and forgets what changed. Never fails: while the
    /// database is away, it keeps trying.
    pub async fn follow_changes(self, shutdown: CancellationToken) {
        follow::follow(&self.shared, shutdown).await;
    }

    /// When the database last confirmed that the caches are up to date; `None` before the first time.
    pub fn confirmed_at(&self) -> Option<DateTime<Utc>> {
        self.shared.confirmation.latest()
    }

    async fn key(
        &self,
        key_id: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<Arc<CachedKey>>, LookupError> {
        let Shared { store, options, clock, keys, confirmation, .. } = &*self.shared;
        let load = || {
            let (store, key_id) = (store.clone(), key_id.to_owned());
            async move { Ok(store.stored_key(&key_id).await?.map(|k| Arc::new(k.into()))) }
        };
        let is_confirmed = |loaded_at| confirmation.covers(loaded_at, at);
        keys.get(key_id, clock.now(), options.lookup_budget, is_confirmed, load).await
    }
}
