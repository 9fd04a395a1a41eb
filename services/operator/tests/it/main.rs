//! The operator's commands on real engines.
