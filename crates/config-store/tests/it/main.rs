//! The configuration on its two engines: one suite on both, and what only a server can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod outage;
mod postgres_server;
mod store;
mod support;

/// Runs each test on SQLite, and on Postgres where there is one.
macro_rules! on_both_engines {
    ($($suite:ident::$test:ident,)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$suite::$test(super::support::Database::sqlite()?).await
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                match super::support::Database::postgres(stringify!($test))? {
                    Some(database) => super::$suite::$test(database).await,
                    None => Ok(()),
                }
            })+
        }
    };
}

on_both_engines! {
    store::migrations_are_applied_once_however_often_they_are_asked_for,
    store::data_survives_a_new_connection,
    store::an_organization_is_created_once,
    store::a_key_is_made_listed_and_revoked,
    store::keys_are_bounded,
    store::a_metric_is_created_once_and_archived,
    store::metrics_are_bounded,
    store::a_customer_is_added_and_renamed,
    store::customers_come_in_pages_in_the_order_of_bytes,
    store::every_change_is_logged_with_it_and_a_refused_one_is_not,
    store::a_reader_of_the_log_misses_nothing_while_many_write,
    store::the_log_is_read_in_pages,
    cache::a_key_is_let_in_until_it_expires_and_for_its_scopes,
    cache::a_revocation_is_seen,
    cache::a_new_metric_is_seen_and_an_archived_one_is_gone,
    cache::a_burst_of_changes_beyond_a_page_is_seen,
    cache::cached_answers_outlive_the_database_up_to_the_limit,
}
