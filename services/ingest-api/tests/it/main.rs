//! The API over real HTTP, on the embedded log and SQLite.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod accounting;
mod admin;
mod api;
mod auth;
mod bad_input;
mod document;
mod events;
mod failures;
mod limits;
