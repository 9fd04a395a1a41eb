//! Deterministic simulation of the pure core: producers → log → members → store, all faults, one seed (docs/simulation.md).
//!
//! The core is the real one; what surrounds it is simulated, time included. A run is a function of
//! its seed.

mod coverage;
mod faults;
mod group;
mod log;
mod member;
mod oracle;
mod plan;
mod prng;
mod producers;
mod run;
mod sabotage;
mod store;
mod sweep;
mod tests;
mod trace;
mod world;
