//! Loads that overlap with changes, with each other, and with a database that does not answer.

use super::*;
use std::sync::atomic::AtomicU32;
use tokio::sync::oneshot;

const BUDGET: Duration = Duration::from_secs(60);

fn cache() -> FollowedCache<u32> {
    FollowedCache::new(100, |_| 1, (100, Duration::from_secs(60)), Arc::new(Semaphore::new(1)))
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

async fn get(cache: &FollowedCache<u32>, value: Option<u32>) -> Option<u32> {
    cache.get("id", at(0), BUDGET, |_| true, || async move { Ok(value) }).await.unwrap()
}

#[tokio::test]
async fn an_entry_is_loaded_once_and_again_after_it_was_invalidated() {
    let cache = cache();
    assert_eq!(get(&cache, Some(1)).await, Some(1));
    assert_eq!(get(&cache, Some(2)).await, Some(1));
    cache.invalidate("id").await;
    assert_eq!(get(&cache, Some(3)).await, Some(3));
    cache.invalidate_all();
    assert_eq!(get(&cache, Some(4)).await, Some(4));
}

#[tokio::test]
async fn an_absent_id_is_remembered_until_it_is_invalidated() {
    let cache = cache();
    assert_eq!(get(&cache, None).await, None);
    assert_eq!(get(&cache, Some(1)).await, None);
    cache.invalidate("id").await;
    assert_eq!(get(&cache, Some(2)).await, Some(2));
}

#[tokio::test]
async fn an_entry_that_is_not_confirmed_is_loaded_again_and_not_served_when_that_fails() {
    let cache = cache();
    let load = |value| {
        cache.get("id", at(5), BUDGET, |at| at.timestamp() >= 5, move || async move { value })
    };
    assert_eq!(get(&cache, Some(1)).await, Some(1));
    let failed = load(Err(ConfigError::Url)).await.unwrap_err();
    assert!(matches!(failed, LookupError::Failed(_)));
    assert_eq!(load(Ok(Some(2))).await.unwrap(), Some(2));
    assert_eq!(load(Ok(Some(3))).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_failed_load_is_not_remembered() {
    let cache = cache();
    let failed = cache.get("id", at(0), BUDGET, |_| true, || async { Err(ConfigError::Url) }).await;
    assert!(matches!(failed, Err(LookupError::Failed(_))));
    assert_eq!(get(&cache, Some(1)).await, Some(1));
}

/// Starts a load that answers `value` once it is told to; the second sender tells it.
async fn slow_load(
    cache: &FollowedCache<u32>,
    value: Option<u32>,
) -> (tokio::task::JoinHandle<Option<u32>>, oneshot::Sender<()>) {
    let ((started, has_started), (go, may_go)) = (oneshot::channel(), oneshot::channel());
    let cache = cache.clone();
    let load = move || async move {
        started.send(()).unwrap();
        may_go.await.unwrap();
        Ok(value)
    };
    let task =
        tokio::spawn(async move { cache.get("id", at(0), BUDGET, |_| true, load).await.unwrap() });
    has_started.await.unwrap();
    (task, go)
}

#[tokio::test]
async fn a_load_that_overlapped_with_a_change_is_not_kept() {
    for value in [Some(1), None] {
        let cache = cache();
        let (task, go) = slow_load(&cache, value).await;
        cache.invalidate("id").await;
        go.send(()).unwrap();
        assert_eq!(task.await.unwrap(), value);
        assert_eq!(get(&cache, Some(2)).await, Some(2), "the state before the change was kept");
    }
}

#[tokio::test]
async fn many_callers_share_one_load() {
    let cache = cache();
    let loads = Arc::new(AtomicU32::new(0));
    let callers = (0..100).map(|_| {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        tokio::spawn(async move {
            let load = || async move {
                tokio::task::yield_now().await;
                loads.fetch_add(1, Ordering::SeqCst);
                Ok(Some(1))
            };
            cache.get("id", at(0), BUDGET, |_| true, load).await.unwrap()
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), Some(1));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_its_budget_only_and_the_load_still_fills_the_cache() {
    let cache = cache();
    let budget = Duration::from_millis(250);
    let load = |delay: u64| {
        move || async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            Ok(Some(1))
        }
    };
    let slow = cache.get("id", at(0), budget, |_| true, load(1_000)).await;
    assert!(matches!(slow, Err(LookupError::TimedOut)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(&cache, Some(2)).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_load_ends_at_its_limit_and_the_waiting_ones_with_it() {
    let cache = cache();
    let stuck = |id: &'static str| {
        let cache = cache.clone();
        async move {
            cache.get(id, at(0), BUDGET, |_| true, || async { std::future::pending().await }).await
        }
    };
    let begin = tokio::time::Instant::now();
    // There is one permit: the second load waits for it, and its wait counts.
    let (first, second) = tokio::join!(stuck("one"), stuck("two"));
    assert!(
        matches!(first, Err(LookupError::TimedOut)) && matches!(second, Err(LookupError::TimedOut))
    );
    assert!(begin.elapsed() < LOOKUP_LIMIT + Duration::from_millis(10));
    assert_eq!(get(&cache, Some(2)).await, Some(2));
}
