//! The consumer on the embedded log and the embedded ClickHouse engine.

mod bench;
mod duplicates;
mod outages;
mod poison;
mod restarts;
