//! seed → schedule → faults on a running stack → verdict of a ledger that shares nothing with it
//!
//! Each trial starts a whole Tallymark on real engines, loads it, breaks parts of it at the times that
//! the seed says, lets it recover, and compares what it bills with what it has accepted.

pub mod fault;
pub mod load;
pub mod nemesis;
pub mod points;
pub mod poison;
pub mod random;
pub mod recovery;
pub mod report;
pub mod rig;
pub mod sabotage;
pub mod schedule;
pub mod shrink;
pub mod trial;
