//! The store against a ClickHouse engine: one engine for all tests, one database for each.

mod billing_page;
mod engine;
mod events;
mod faults;
mod identities;
mod inserts;
mod property;
mod schema;
mod views;
