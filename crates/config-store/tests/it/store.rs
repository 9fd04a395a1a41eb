//! What the store promises on every engine.

use crate::support::{Database, ORGANIZATION, at, new_key, pepper};
use anyhow::Result;
use config_store::store::{
    CHANGES_PAGE, CUSTOMERS_PAGE, KEYS_PER_ORGANIZATION_MAX, METRICS_PER_ORGANIZATION_MAX,
};
use config_store::{ChangeKind, ConfigError, ConfigStore, Entity, PoolOptions, Scope};
use metering::{Aggregation, BillableMetric};
use std::time::{Duration, Instant};

pub(crate) fn metric(code: &str) -> BillableMetric {
    BillableMetric { code: code.to_owned(), aggregation: Aggregation::Count, field: None }
}

fn is_not_found<T: std::fmt::Debug>(outcome: Result<T, ConfigError>, entity: Entity) -> bool {
    matches!(outcome.unwrap_err(), ConfigError::NotFound { what, .. } if what == entity)
}

fn already_exists<T: std::fmt::Debug>(outcome: Result<T, ConfigError>, entity: Entity) -> bool {
    matches!(outcome.unwrap_err(), ConfigError::AlreadyExists { what, .. } if what == entity)
}

pub(crate) async fn migrations_are_applied_once_however_often_they_are_asked_for(
    database: Database,
) -> Result<()> {
    let store = ConfigStore::connect(&database.url, PoolOptions::default()).await?;
    assert!(store.latest_change().await.is_err(), "there are no tables yet");
    store.migrate().await?;
    store.create_organization(Some(ORGANIZATION), "Test", at(0)).await?;
    store.migrate().await?;
    assert_eq!(store.organization(ORGANIZATION).await?.name, "Test");
    Ok(())
}

pub(crate) async fn data_survives_a_new_connection(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    store.close().await;
    let away = store.organization(ORGANIZATION).await.unwrap_err();
    assert!(away.is_transient(), "{away:?}");
    let store = database.store().await?;
    assert_eq!(store.organization(ORGANIZATION).await?.id, ORGANIZATION);
    Ok(())
}

pub(crate) async fn an_organization_is_created_once(database: Database) -> Result<()> {
    let store = database.store().await?;
    // Instants are kept to the millisecond.
    let made_at = at(0) + Duration::from_nanos(1_234_567);
    let created = store.create_organization(Some("org_1"), "One & Söhne", made_at).await?;
    assert_eq!(created.created_at, at(0) + Duration::from_millis(1));
    assert_eq!(store.organization("org_1").await?, created);

    let again = store.create_organization(Some("org_1"), "Another", at(1)).await;
    assert!(already_exists(again, Entity::Organization));
    assert_eq!(store.organization("org_1").await?.name, "One & Söhne");

    let generated = store.create_organization(None, "Two", at(2)).await?;
    assert!(generated.id.starts_with("org_"));
    assert_eq!(store.organization(&generated.id).await?, generated);
    assert_eq!(store.list_organizations().await?, [generated, created], "the newest first");

    assert!(is_not_found(store.organization("org_3").await, Entity::Organization));
    let invalid = store.create_organization(Some("org 4"), "Four", at(3)).await;
    assert!(matches!(invalid, Err(ConfigError::Invalid(_))));
    Ok(())
}

pub(crate) async fn a_key_is_made_listed_and_revoked(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    store.create_organization(Some("org_other"), "Other", at(0)).await?;
    let scopes = [Scope::Read, Scope::Ingest];
    let (first, text) = store
        .create_api_key(ORGANIZATION, &pepper(), "first", &scopes, Some(at(60)), at(1))
        .await?;
    assert!(text.contains(&first.key_id));
    assert!(!format!("{first:?}").contains(&text[15..58]), "the record holds no secret");
    assert_eq!(first.scopes.iter().collect::<Vec<_>>(), [Scope::Ingest, Scope::Read]);
    assert_eq!((first.expires_at, first.revoked_at), (Some(at(60)), None));
    let (second, other_text) =
        store.create_api_key(ORGANIZATION, &pepper(), "second", &scopes, None, at(2)).await?;
    assert_ne!(text, other_text);
    assert_eq!(store.list_api_keys(ORGANIZATION).await?, [second.clone(), first.clone()]);

    let revoked = store.revoke_api_key(ORGANIZATION, &first.key_id, at(3)).await?;
    assert_eq!(revoked.revoked_at, Some(at(3)));
    let again = store.revoke_api_key(ORGANIZATION, &first.key_id, at(4)).await?;
    assert_eq!(again.revoked_at, Some(at(3)), "the first date stays");
    assert_eq!(store.list_api_keys(ORGANIZATION).await?, [second.clone(), revoked]);

    // Another organization's key is as good as none.
    let foreign = store.revoke_api_key("org_other", &second.key_id, at(5)).await;
    assert!(is_not_found(foreign, Entity::ApiKey));
    assert!(store.list_api_keys("org_other").await?.is_empty());
    assert!(is_not_found(store.revoke_api_key(ORGANIZATION, "0", at(5)).await, Entity::ApiKey));
    let homeless = store.create_api_key("org_none", &pepper(), "x", &scopes, None, at(6)).await;
    assert!(is_not_found(homeless, Entity::Organization));
    let useless = store.create_api_key(ORGANIZATION, &pepper(), "x", &[], None, at(6)).await;
    assert!(matches!(useless, Err(ConfigError::Invalid(_))));
    Ok(())
}

pub(crate) async fn keys_are_bounded(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    let (key_id, _) = new_key(&store).await?;
    in_parallel(KEYS_PER_ORGANIZATION_MAX - 1, &store, |store, _| async move {
        new_key(&store).await.map(drop)
    })
    .await?;
    let one_too_many = new_key(&store).await.unwrap_err();
    assert!(matches!(one_too_many.downcast_ref(), Some(ConfigError::Invalid(_))));
    store.revoke_api_key(ORGANIZATION, &key_id, at(1)).await?;
    new_key(&store).await?;
    Ok(())
}

pub(crate) async fn a_metric_is_created_once_and_archived(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    assert!(store.metric_catalog(ORGANIZATION).await?.is_empty());
    for (position, aggregation) in Aggregation::ALL.into_iter().enumerate() {
        let field = (position % 2 == 0)
            .then(|| "bytes".to_owned())
            .or_else(|| (aggregation == Aggregation::UniqueCount).then(|| "user_id".to_owned()));
        let metric = BillableMetric { code: aggregation.to_string(), aggregation, field };
        store.create_billable_metric(ORGANIZATION, &metric, at(1)).await?;
        let catalog = store.metric_catalog(ORGANIZATION).await?;
        assert_eq!(catalog.get(aggregation.as_str()), Some(&metric));
    }
    assert_eq!(store.metric_catalog(ORGANIZATION).await?.len(), Aggregation::ALL.len());
    assert!(store.metric_catalog("org_other").await?.is_empty());

    let again = store.create_billable_metric(ORGANIZATION, &metric("sum"), at(2)).await;
    assert!(already_exists(again, Entity::BillableMetric));
    store.archive_billable_metric(ORGANIZATION, "sum", at(3)).await?;
    store.archive_billable_metric(ORGANIZATION, "sum", at(4)).await?;
    assert_eq!(store.metric_catalog(ORGANIZATION).await?.get("sum"), None);
    let reused = store.create_billable_metric(ORGANIZATION, &metric("sum"), at(5)).await;
    assert!(already_exists(reused, Entity::BillableMetric), "a code keeps its meaning");

    let unknown = store.archive_billable_metric(ORGANIZATION, "none", at(6)).await;
    assert!(is_not_found(unknown, Entity::BillableMetric));
    let homeless = store.create_billable_metric("org_none", &metric("a"), at(6)).await;
    assert!(is_not_found(homeless, Entity::Organization));
    let invalid = store.create_billable_metric(ORGANIZATION, &metric(" "), at(6)).await;
    assert!(matches!(invalid, Err(ConfigError::Invalid(_))));
    Ok(())
}

pub(crate) async fn metrics_are_bounded(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    in_parallel(METRICS_PER_ORGANIZATION_MAX, &store, |store, number| async move {
        let metric = metric(&format!("metric_{number}"));
        Ok(store.create_billable_metric(ORGANIZATION, &metric, at(1)).await?)
    })
    .await?;
    let one_too_many = store.create_billable_metric(ORGANIZATION, &metric("more"), at(1)).await;
    assert!(matches!(one_too_many, Err(ConfigError::Invalid(_))));
    store.archive_billable_metric(ORGANIZATION, "metric_0", at(2)).await?;
    store.create_billable_metric(ORGANIZATION, &metric("more"), at(3)).await?;
    Ok(())
}

pub(crate) async fn a_customer_is_added_and_renamed(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    let added = store.upsert_customer(ORGANIZATION, "c/1", "One", at(1)).await?;
    assert_eq!(store.customers(ORGANIZATION, None).await?, [added]);
    let renamed = store.upsert_customer(ORGANIZATION, "c/1", "Eins", at(2)).await?;
    assert_eq!((renamed.created_at, renamed.updated_at), (at(1), at(2)));
    assert_eq!(store.customers(ORGANIZATION, None).await?, [renamed]);
    let homeless = store.upsert_customer("org_none", "c", "C", at(3)).await;
    assert!(is_not_found(homeless, Entity::Organization));
    let invalid = store.upsert_customer(ORGANIZATION, "c\n", "C", at(3)).await;
    assert!(matches!(invalid, Err(ConfigError::Invalid(_))));
    Ok(())
}

pub(crate) async fn customers_come_in_pages_in_the_order_of_bytes(
    database: Database,
) -> Result<()> {
    let store = database.store_with_organization().await?;
    for id in ["ä", "b", "Z", "_"] {
        store.upsert_customer(ORGANIZATION, id, "A customer", at(1)).await?;
    }
    let ids = async |after| -> Result<Vec<String>> {
        let page = store.customers(ORGANIZATION, after).await?;
        Ok(page.into_iter().map(|customer| customer.external_customer_id).collect())
    };
    assert_eq!(ids(None).await?, ["Z", "_", "b", "ä"]);
    in_parallel(CUSTOMERS_PAGE - 3, &store, |store, number| async move {
        let id = format!("c{number:04}");
        store.upsert_customer(ORGANIZATION, &id, "A customer", at(1)).await?;
        Ok(())
    })
    .await?;
    let first = ids(None).await?;
    assert_eq!(first.len(), usize::try_from(CUSTOMERS_PAGE)?);
    assert_eq!(ids(first.last().map(String::as_str)).await?, ["ä"]);
    Ok(())
}

pub(crate) async fn every_change_is_logged_with_it_and_a_refused_one_is_not(
    database: Database,
) -> Result<()> {
    let store = database.store().await?;
    assert_eq!(store.latest_change().await?, 0);
    store.create_organization(Some(ORGANIZATION), "Test", at(1)).await?;
    store.create_organization(Some(ORGANIZATION), "Again", at(1)).await.unwrap_err();
    let (key_id, _) = new_key(&store).await?;
    store.revoke_api_key(ORGANIZATION, "0", at(2)).await.unwrap_err();
    store.revoke_api_key(ORGANIZATION, &key_id, at(3)).await?;
    store.create_billable_metric(ORGANIZATION, &metric("a"), at(4)).await?;
    store.create_billable_metric("org_none", &metric("a"), at(4)).await.unwrap_err();
    store.archive_billable_metric(ORGANIZATION, "a", at(5)).await?;
    store.archive_billable_metric(ORGANIZATION, "b", at(5)).await.unwrap_err();
    store.upsert_customer(ORGANIZATION, "c", "C", at(6)).await?;

    let changes = store.changes_after(0).await?;
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    let expected = [
        ChangeKind::OrganizationCreated,
        ChangeKind::ApiKeyCreated,
        ChangeKind::ApiKeyRevoked,
        ChangeKind::BillableMetricCreated,
        ChangeKind::BillableMetricArchived,
        ChangeKind::CustomerChanged,
    ];
    assert_eq!(kinds, expected);
    let numbers: Vec<_> = changes.iter().map(|change| change.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert!(changes.iter().all(|change| change.organization_id == ORGANIZATION));
    let keys: Vec<_> = changes.iter().map(|change| change.key_id.as_deref()).collect();
    assert_eq!(keys, [None, Some(key_id.as_str()), Some(&key_id), None, None, None]);
    assert_eq!(changes[2].changed_at, at(3));
    assert_eq!(store.latest_change().await?, 6);
    assert_eq!(store.changes_after(4).await?, changes[4..]);
    assert!(store.changes_after(6).await?.is_empty());
    assert!(store.changes_after(u64::MAX).await?.is_empty());
    Ok(())
}

pub(crate) async fn a_reader_of_the_log_misses_nothing_while_many_write(
    database: Database,
) -> Result<()> {
    const CHANGES: u32 = 400;
    let store = database.store_with_organization().await?;
    let reader = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut seen: Vec<u64> = Vec::new();
            let begin = Instant::now();
            while seen.len() <= usize::try_from(CHANGES).unwrap() {
                assert!(begin.elapsed() < Duration::from_secs(60), "seen: {seen:?}");
                let last = seen.last().copied().unwrap_or(0);
                seen.extend(store.changes_after(last).await?.iter().map(|change| change.seq));
            }
            anyhow::Ok(seen)
        })
    };
    in_parallel(CHANGES, &store, |store, number| async move {
        let id = format!("c{number}");
        store.upsert_customer(ORGANIZATION, &id, "A customer", at(1)).await?;
        Ok(())
    })
    .await?;
    let seen = reader.await??;
    assert_eq!(seen, (1..=u64::from(CHANGES) + 1).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn the_log_is_read_in_pages(database: Database) -> Result<()> {
    let store = database.store_with_organization().await?;
    in_parallel(CHANGES_PAGE, &store, |store, number| async move {
        let id = format!("c{number}");
        store.upsert_customer(ORGANIZATION, &id, "A customer", at(1)).await?;
        Ok(())
    })
    .await?;
    let page = u64::from(CHANGES_PAGE);
    let first = store.changes_after(0).await?;
    assert_eq!(first.last().map(|change| change.seq), Some(page));
    let rest = store.changes_after(page).await?;
    assert_eq!(rest.iter().map(|change| change.seq).collect::<Vec<_>>(), [page + 1]);
    Ok(())
}

/// Runs `work` with each number below `count`, on eight tasks.
pub(crate) async fn in_parallel<F>(
    count: u32,
    store: &ConfigStore,
    work: impl Fn(ConfigStore, u32) -> F + Clone + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send,
{
    const TASKS: u32 = 8;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, work) = (store.clone(), work.clone());
            tokio::spawn(async move {
                for number in (task..count).step_by(usize::try_from(TASKS)?) {
                    work(store.clone(), number).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}
