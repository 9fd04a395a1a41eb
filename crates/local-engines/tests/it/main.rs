//! The engines as tests use them: started, broken and started again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
