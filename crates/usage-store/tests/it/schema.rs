//! Applying and checking the schema.

use crate::engine::{Database, database, shared};
use usage_store::StoreError;
use usage_store::schema::SCHEMA_FILES;

#[tokio::test]
async fn the_schema_applies_once_and_then_again_without_effect() {
    let database = Database::open(shared().config("twice"));
    assert_eq!(database.store.migrate().await.unwrap(), SCHEMA_FILES.len());
    assert_eq!(database.store.migrate().await.unwrap(), 0);
    database.store.check().await.unwrap();
    let recorded =
        database.text("SELECT version, name FROM schema_migrations ORDER BY version").await;
    let expected: String =
        SCHEMA_FILES.iter().map(|file| format!("{}\t{}\n", file.version, file.name)).collect();
    assert_eq!(recorded, expected);
}

#[tokio::test]
async fn two_may_apply_it_at_once() {
    let database = Database::open(shared().config("at_once"));
    let (one, other) = tokio::join!(database.store.migrate(), database.store.migrate());
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    database.store.check().await.unwrap();
}

#[tokio::test]
async fn an_interrupted_apply_is_continued() {
    let database = database("interrupted").await;
    // The files took effect, but that was not recorded any more.
    database.execute("TRUNCATE TABLE schema_migrations").await;
    assert!(matches!(database.store.check().await, Err(StoreError::Schema(_))));
    assert_eq!(database.store.migrate().await.unwrap(), SCHEMA_FILES.len());
    database.store.check().await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_applied_is_refused() {
    let database = database("changed").await;
    database.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (1, '0001_usage_events.sql', 'other')").await;
    for result in [database.store.migrate().await.map(|_| ()), database.store.check().await] {
        let Err(StoreError::Schema(text)) = result else { panic!("{result:?}") };
        assert!(text.contains("0001_usage_events.sql"), "{text}");
    }
}

#[tokio::test]
async fn a_database_without_schema_says_what_to_run() {
    let database = Database::open(shared().config("empty"));
    let error = database.store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Query { code: Some(60 | 81), .. }), "{error:?}");
    database.store.migrate().await.unwrap();
    database.execute("DROP TABLE dead_letters").await;
    let error = database.store.check().await.unwrap_err().to_string();
    assert!(error.contains("dead_letters") && error.contains("migrate"), "{error}");
}

#[tokio::test]
async fn a_live_table_of_other_types_is_refused() {
    let database = database("types").await;
    database
        .execute("ALTER TABLE usage_events MODIFY COLUMN value Nullable(Decimal(38, 11))")
        .await;
    let error = database.store.check().await.unwrap_err().to_string();
    assert!(error.contains("usage_events.value") && error.contains("Decimal(38, 12)"), "{error}");
}

#[tokio::test]
async fn the_server_answers_a_ping_and_its_absence_is_an_error() {
    let database = database("ping").await;
    database.store.ping().await.unwrap();
    let mut config = database.config.clone();
    config.url = format!("http://127.0.0.1:{}", local_engines::free_port());
    let error = Database::open(config).store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Query { code: None, .. }), "{error:?}");
}

/// The limits in the server's user configuration are settings that exist.
#[tokio::test]
async fn the_profiles_of_the_users_name_real_settings() {
    let database = database("profiles").await;
    let page = include_str!("../../../../clickhouse-schema/users/tallymark.xml");
    let profiles = page.split_once("<profiles>").unwrap().1.split_once("</profiles>").unwrap().0;
    let names: Vec<_> = profiles
        .lines()
        .filter_map(|line| line.trim().strip_prefix('<')?.split_once('>'))
        .filter(|(name, rest)| rest.ends_with(&format!("</{name}>")))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        database
            .expect(&format!("SELECT count() FROM system.settings WHERE name = '{name}'"), &["1"])
            .await;
    }
}
