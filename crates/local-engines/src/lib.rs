//! Engines that a developer's machine can run by itself: fetched, started, supervised and stopped.
//!
//! Everything that is downloaded goes to [`cache_dir`], outside the source tree, and is fetched once.

pub mod clickhouse;
pub mod kafka;
pub mod libchdb;
pub mod postgres;
pub mod process;
pub mod small_disk;

mod ports;

pub use ports::free_port;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;

/// Where downloaded engines are kept: `TALLYMARK_CACHE_DIR`, else `tallymark` in the user's cache directory.
#[expect(
    clippy::disallowed_methods,
    reason = "the cache directory is the environment's to say, for every program alike"
)]
pub fn cache_dir() -> PathBuf {
    let from =
        |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
    from("TALLYMARK_CACHE_DIR")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("tallymark")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/tallymark")))
        .unwrap_or_else(|| std::env::temp_dir().join("tallymark-cache"))
}

/// For tests that need an engine: the engine, or `None` after saying loudly that the test was left out.
///
/// # Panics
/// When `CI=true`, where nothing may be left out.
#[expect(clippy::disallowed_methods, reason = "a test run has no other configuration")]
pub fn require_or_skip<T, E: Display>(engine: &str, found: Result<T, E>) -> Option<T> {
    match found {
        Ok(engine) => Some(engine),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("{engine} is required in CI: {error:#}")
        }
        Err(error) => {
            // Not `eprintln!`, which the test harness swallows when the test passes.
            let line = format!("\n*** LEFT OUT: a test on {engine}: {error:#}\n");
            drop(writeln!(std::io::stderr().lock(), "{line}"));
            None
        }
    }
}
