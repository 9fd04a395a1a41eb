//! engines → reconcile, replay, dead-letters: what an operator does beside the running services.

pub mod config;
pub mod dead_letters;
pub mod engines;
mod metrics;
pub mod output;
pub mod reconcile;
pub mod replay;
pub mod schedule;
