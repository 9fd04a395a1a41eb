//! A cache whose entries stay until the follower of the log of changes removes them.
//!
//! An entry is loaded once however many callers wait for it. A load that overlapped with a change
//! may have seen the state before it, after the follower had already removed the entry; every load
//! therefore checks afterwards whether changes came in, and if so takes its own entry out again.

use crate::error::ConfigError;
use chrono::{DateTime, Utc};
use moka::future::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Longest time for one load. Callers stop waiting earlier; the load goes on, so that a slow
/// database still fills the cache. Below the two seconds in which a revocation has to be seen.
pub(super) const LOOKUP_LIMIT: Duration = Duration::from_millis(1_500);

/// Why something that is not cached could not be looked up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    /// The database did not answer in the time that a request may wait for it.
    #[error("the configuration database did not answer in time")]
    TimedOut,
    #[error("the configuration database could not be asked")]
    Failed(#[source] Arc<ConfigError>),
}

impl LookupError {
    pub(super) fn into_config_error(self, limit: Duration) -> ConfigError {
        let operation = "looking up the configuration";
        match self {
            Self::TimedOut => ConfigError::TimedOut { operation, limit },
            Self::Failed(source) => {
                ConfigError::Unavailable { operation, source: Box::new(source) }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Entry<V> {
    value: V,
    loaded_at: DateTime<Utc>,
}

/// Why a load brought no entry.
#[derive(Debug)]
enum Miss {
    Absent,
    TimedOut,
    Failed(Arc<ConfigError>),
}

/// Clones share the entries.
#[derive(Clone, Debug)]
pub(super) struct FollowedCache<V: Clone + Send + Sync + 'static> {
    present: Cache<Arc<str>, Entry<V>>,
    absent: Cache<Arc<str>, ()>,
    invalidations: Arc<AtomicU64>,
    lookups: Arc<Semaphore>,
}

impl<V: Clone + Send + Sync + 'static> FollowedCache<V> {
    /// Keeps entries up to a total weight of `weight_max`, and up to `absent.0` ids that have no
    /// entry for `absent.1` each.
    pub(super) fn new(
        weight_max: u64,
        weigh: impl Fn(&V) -> u32 + Send + Sync + 'static,
        absent: (u64, Duration),
        lookups: Arc<Semaphore>,
    ) -> Self {
        let present = Cache::builder()
            .max_capacity(weight_max)
            .weigher(move |_, entry: &Entry<V>| weigh(&entry.value))
            .build();
        let absent = Cache::builder().max_capacity(absent.0).time_to_live(absent.1).build();
        Self { present, absent, invalidations: Arc::default(), lookups }
    }

    /// The value of `id`, from memory if `is_confirmed` accepts the instant it was loaded at, else
    /// from `load` within `budget`. `now` is noted as the instant of a load.
    pub(super) async fn get<F>(
        &self,
        id: &str,
        now: DateTime<Utc>,
        budget: Duration,
        is_confirmed: impl Fn(DateTime<Utc>) -> bool,
        load: impl FnOnce() -> F,
    ) -> Result<Option<V>, LookupError>
    where
        F: Future<Output = Result<Option<V>, ConfigError>> + Send + 'static,
    {
        match self.present.get(id).await {
            Some(entry) if is_confirmed(entry.loaded_at) => return Ok(Some(entry.value)),
            Some(_) => self.present.invalidate(id).await,
            None if self.absent.get(id).await.is_some() => return Ok(None),
            None => {}
        }
        let loading = self.clone().load_once(id.into(), now, load());
        // A task of its own: neither a caller that gives up nor one that waits too long ends it.
        match tokio::time::timeout(budget, tokio::spawn(loading)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Ok(Err(_)) | Err(_) => Err(LookupError::TimedOut),
        }
    }

    /// Forgets whatever is known about `id`.
    pub(super) async fn invalidate(&self, id: &str) {
        self.invalidations.fetch_add(1, Ordering::SeqCst);
        self.present.invalidate(id).await;
        self.absent.invalidate(id).await;
    }

    pub(super) fn invalidate_all(&self) {
        self.invalidations.fetch_add(1, Ordering::SeqCst);
        self.present.invalidate_all();
        self.absent.invalidate_all();
    }

    async fn load_once<F>(
        self,
        id: Arc<str>,
        now: DateTime<Utc>,
        load: F,
    ) -> Result<Option<V>, LookupError>
    where
        F: Future<Output = Result<Option<V>, ConfigError>> + Send,
    {
        let before = self.invalidations.load(Ordering::SeqCst);
        let loading = self.load(&id, now, load);
        let outcome = self.present.try_get_with_by_ref(&id, loading).await;
        if self.invalidations.load(Ordering::SeqCst) != before {
            self.present.invalidate(&id).await;
            self.absent.invalidate(&id).await;
        }
        match outcome {
            Ok(entry) => Ok(Some(entry.value)),
            Err(miss) => match &*miss {
                Miss::Absent => Ok(None),
                Miss::TimedOut => Err(LookupError::TimedOut),
                Miss::Failed(error) => Err(LookupError::Failed(Arc::clone(error))),
            },
        }
    }

    async fn load<F>(
        &self,
        id: &Arc<str>,
        loaded_at: DateTime<Utc>,
        load: F,
    ) -> Result<Entry<V>, Miss>
    where
        F: Future<Output = Result<Option<V>, ConfigError>> + Send,
    {
        let bounded = async {
            let _permit = self.lookups.acquire().await.expect("the semaphore is never closed");
            load.await
        };
        match tokio::time::timeout(LOOKUP_LIMIT, bounded).await {
            Ok(Ok(Some(value))) => Ok(Entry { value, loaded_at }),
            Ok(Ok(None)) => {
                self.absent.insert(Arc::clone(id), ()).await;
                Err(Miss::Absent)
            }
            Ok(Err(error)) => Err(Miss::Failed(Arc::new(error))),
            Err(_) => Err(Miss::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests;
