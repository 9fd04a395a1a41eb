//! What every process needs: clock, telemetry, lifecycle, HTTP server, admin endpoint, secrets, retry.

pub mod admin;
pub mod clock;
pub mod duration;
pub mod http_server;
pub mod lifecycle;
pub mod listen;
pub mod retry;
pub mod secret;
pub mod telemetry;
