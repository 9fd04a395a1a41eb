//! The operator's commands on real engines: a log, a store, and a consumer between them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod damage;
mod dead_letters;
mod program;
mod reconcile;
mod replay;
mod search;
