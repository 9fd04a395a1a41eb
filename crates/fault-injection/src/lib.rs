//! Faults that a test build can be told to commit: stops at a step's boundary, known wrong
//! behaviours, and a clock that is off.
//!
//! Everything is read from the directory that `TALLYMARK_FAULT_DIR` names; without it nothing
//! happens, and with it a warning is logged at the first use. In a build without debug assertions, which every release is, the functions are empty
//! and no fault can be injected.

mod directory;
mod point;
mod sabotage;
mod seen;

pub use point::{Action, Point};
pub use sabotage::Sabotage;

/// Whether this build can be told to commit faults.
pub const ENABLED: bool = cfg!(debug_assertions);

/// What a step returns that was told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an injected fault")]
pub struct InjectedFault;

/// Commits the fault that is armed for `point`, once: ends the process, waits, or fails.
#[cfg(debug_assertions)]
pub fn reach(point: Point) -> Result<(), InjectedFault> {
    directory::get().map_or(Ok(()), |directory| directory.reach(point))
}

/// Whether the process was started to behave wrongly in this way.
#[cfg(debug_assertions)]
pub fn sabotaged(sabotage: Sabotage) -> bool {
    directory::get().is_some_and(|directory| directory.sabotage == Some(sabotage))
}

/// Whether `id` was asked for before, by this process or one before it with the same fault directory.
#[cfg(debug_assertions)]
pub fn seen_before(id: &[u8; 16]) -> bool {
    directory::get().is_some_and(|directory| directory.seen.note(id))
}

/// By how many milliseconds the process's clock is off now.
#[cfg(debug_assertions)]
pub fn clock_offset_ms() -> i64 {
    directory::get().map_or(0, directory::Directory::clock_offset_ms)
}

/// Does nothing in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_: Point) -> Result<(), InjectedFault> {
    Ok(())
}

/// Never, in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn sabotaged(_: Sabotage) -> bool {
    false
}

/// Never, in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn seen_before(_: &[u8; 16]) -> bool {
    false
}

/// Always 0, in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn clock_offset_ms() -> i64 {
    0
}
