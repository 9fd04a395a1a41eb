//! The directory that says which faults to commit. A test writes it while the process runs.
//!
//! - `<point>`: the [`Action`] to take there. It is renamed to `<point>.fired` by the process that
//!   takes it, so that it happens once, whatever restarts, and a test can see that it did.
//! - `sabotage`: the name of a [`Sabotage`], read once.
//! - `clock`: milliseconds to add to the time.
//! - `seen`: ids that were noted as seen.

#![cfg_attr(not(debug_assertions), expect(dead_code, reason = "release builds inject nothing"))]

use crate::seen::SeenSet;
use crate::{Action, InjectedFault, Point, Sabotage};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, process, thread};

/// Names the directory. The same for every service, so it is read here and not in their flags.
const VARIABLE: &str = "TALLYMARK_FAULT_DIR";

#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) seen: SeenSet,
}

/// The directory of this process, if it has one. It is said once that it has: a log of such a process
/// must not be taken for that of a service at work.
#[expect(clippy::disallowed_methods, reason = "no service has a flag for it: it is not a feature")]
pub(crate) fn get() -> Option<&'static Directory> {
    static DIRECTORY: OnceLock<Option<Directory>> = OnceLock::new();
    let mut is_new = false;
    let open = || {
        is_new = true;
        std::env::var(VARIABLE).ok().map(|path| Directory::open(path.into()))
    };
    let directory = DIRECTORY.get_or_init(open).as_ref();
    // Only now: whoever writes the line may ask for the time, and so for the directory.
    if is_new && let Some(directory) = directory {
        directory.announce();
    }
    directory
}

impl Directory {
    /// # Panics
    /// When the directory asks for a sabotage that does not exist.
    fn open(path: PathBuf) -> Self {
        let sabotage = fs::read_to_string(path.join("sabotage")).ok().map(|name| {
            let name = name.trim();
            Sabotage::from_name(name).unwrap_or_else(|| panic!("no sabotage is called `{name}`"))
        });
        let seen = SeenSet::new(path.join("seen"));
        Self { path, sabotage, seen }
    }

    fn announce(&self) {
        let (directory, sabotage) = (self.path.display(), self.sabotage.map(Sabotage::name));
        tracing::warn!(%directory, sabotage, "this process commits the faults it is told to");
    }

    pub(crate) fn reach(&self, point: Point) -> Result<(), InjectedFault> {
        let armed = self.path.join(point.name());
        let Some(action) = take(&armed) else { return Ok(()) };
        match action {
            Action::Abort => process::abort(),
            Action::Stall(limit) => {
                thread::sleep(limit);
                Ok(())
            }
            Action::Error => Err(InjectedFault),
        }
    }

    pub(crate) fn clock_offset_ms(&self) -> i64 {
        let text = fs::read_to_string(self.path.join("clock")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

/// The action that is armed, for the one who gets to rename its file.
fn take(armed: &Path) -> Option<Action> {
    let action = fs::read_to_string(armed).ok()?;
    fs::rename(armed, armed.with_extension("fired")).ok()?;
    let action = action.trim();
    Some(action.parse().unwrap_or_else(|()| panic!("`{action}` is no action")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn directory() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path().to_owned());
        (temporary, directory)
    }

    #[test]
    fn an_armed_point_fires_once_and_shows_it() {
        let (temporary, directory) = directory();
        assert_eq!(directory.reach(Point::EventsInserted), Ok(()));
        Action::Error.arm(temporary.path(), Point::EventsInserted).unwrap();
        assert!(!Point::EventsInserted.has_fired(temporary.path()));
        assert_eq!(directory.reach(Point::BatchSealed), Ok(()), "another point");
        assert_eq!(directory.reach(Point::EventsInserted), Err(InjectedFault));
        assert!(Point::EventsInserted.has_fired(temporary.path()));
        assert_eq!(directory.reach(Point::EventsInserted), Ok(()));
    }

    #[test]
    fn a_stall_waits_and_goes_on() {
        let (temporary, directory) = directory();
        let limit = Duration::from_millis(20);
        Action::Stall(limit).arm(temporary.path(), Point::BatchSealed).unwrap();
        let start = Instant::now();
        assert_eq!(directory.reach(Point::BatchSealed), Ok(()));
        assert!(start.elapsed() >= limit);
    }

    #[test]
    fn the_clock_is_off_by_what_the_file_says() {
        let (temporary, directory) = directory();
        assert_eq!(directory.clock_offset_ms(), 0);
        fs::write(temporary.path().join("clock"), "-7200000\n").unwrap();
        assert_eq!(directory.clock_offset_ms(), -7_200_000);
    }

    #[test]
    fn a_sabotage_is_known_by_its_name() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("sabotage"), "commit-before-insert\n").unwrap();
        let directory = Directory::open(temporary.path().to_owned());
        assert_eq!(directory.sabotage, Some(Sabotage::CommitBeforeInsert));
    }
}
