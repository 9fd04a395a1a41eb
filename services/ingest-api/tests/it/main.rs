//! The API over real HTTP, on the embedded log and SQLite.

mod accounting;
mod admin;
mod api;
mod auth;
mod bad_input;
mod document;
mod events;
mod failures;
mod limits;
