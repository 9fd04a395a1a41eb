//! Fixtures for tests: a ledger that shares no code with the pipeline, a whole stack, a TCP proxy with faults.

pub mod compose;
pub mod event;
pub mod ledger;
pub mod proxy;
pub mod repo;
pub mod sender;
pub mod sql;
pub mod stack;
pub mod wait;
