//! The child processes a stack may have, each as something that can be supervised.

pub(crate) mod clickhouse;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod service;
