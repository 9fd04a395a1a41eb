//! The contract of the log on both transports, and what each of them promises beyond it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod embedded;
mod kafka;
mod reader;
mod support;
