//! The store against a ClickHouse engine: one engine for all tests, one database for each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod billing_page;
mod engine;
mod events;
mod faults;
mod identities;
mod inserts;
mod property;
mod replicas;
mod schema;
mod views;
