//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up. Generous: machines are shared and slow,
/// and a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `condition` until it gives a value.
///
/// # Panics
/// When it has given none after [`PATIENCE`]; the message names `what` and the last reason.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) => assert_in_time(what, deadline, &reason),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn assert_in_time(what: &str, deadline: Instant, reason: &str) {
    assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {reason}");
}
