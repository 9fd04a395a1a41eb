//! The whole pipeline under test, on both sets of engines, and the checks of the repository itself.

mod compose;
mod contract;
mod faults;
mod repository;
mod scenario;
