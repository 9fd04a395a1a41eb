//! The consumer on the embedded log, or a real Kafka, and the embedded ClickHouse engine.

mod bench;
mod duplicates;
mod outages;
mod poison;
mod rebalances;
mod restarts;
mod takeovers;
