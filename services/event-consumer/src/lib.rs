//! poll → decode → dedup → batch → insert → commit

pub mod batch;
pub mod conflict;
pub mod dead_letter;
pub mod decode;
pub mod dedup;
pub mod partition;
pub mod rebalance;

#[cfg(test)]
mod model_tests;
