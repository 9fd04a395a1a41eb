//! The contract of the log on both transports, and what each of them promises beyond it.

mod contract;
mod embedded;
mod kafka;
mod support;
