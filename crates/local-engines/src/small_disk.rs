//! A disk of a few megabytes, which tests can fill up.

use crate::process::Guardian;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What takes up the space of a full disk.
const FILLER: &str = "filler";
/// Written at once until nothing more of this size fits, largest first. The last is a page, the
/// smallest piece that this kind of disk gives out.
const PIECES: [usize; 2] = [1024 * 1024, 4096];

/// Why there is no small disk.
#[derive(Debug, thiserror::Error)]
pub enum SmallDiskError {
    /// Only root of Linux may mount one, and not in every container.
    #[error("this process may not mount a disk; that needs root on Linux: {0}")]
    NotPermitted(String),
    #[error("a small disk could not be made")]
    Io(#[source] io::Error),
}

/// A disk in memory, mounted on a directory of its own. Dropping it unmounts it, and so does the end
/// of this process; what it holds is lost.
#[derive(Debug)]
pub struct SmallDisk {
    guardian: Guardian,
    directory: PathBuf,
    bytes: u64,
}

impl SmallDisk {
    /// Mounts a disk that holds `bytes`, which is rounded up to pages.
    pub fn mount(bytes: u64) -> Result<Self, SmallDiskError> {
        let directory = tempfile::Builder::new().prefix("small-disk-").tempdir();
        let directory = directory.map_err(SmallDiskError::Io)?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755,nosuid,nodev"), "tmpfs"])
            .arg(directory.path());
        run(mount).map_err(SmallDiskError::NotPermitted)?;
        // From here on the directory is removed by whoever unmounts the disk.
        let directory = directory.keep();
        let guardian =
            Guardian::run_after_us(r#"umount -l "$1" && rmdir "$1""#, directory.as_os_str());
        match guardian {
            Ok(guardian) => Ok(Self { guardian, directory, bytes }),
            Err(error) => {
                unmount(&directory);
                Err(SmallDiskError::Io(error))
            }
        }
    }

    /// For tests: a disk, or `None` after saying loudly that the test was left out.
    ///
    /// # Panics
    /// When `CI=true`, which runs as root on Linux, and for any other reason than a lack of permission.
    pub fn require_or_skip(bytes: u64) -> Option<Self> {
        match Self::mount(bytes) {
            Err(SmallDiskError::Io(error)) => panic!("a small disk could not be made: {error}"),
            mounted => crate::require_or_skip("a small disk", mounted),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// How much it holds, in bytes.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// Takes up all space that is left; returns how much that was, in bytes.
    ///
    /// Others may free space afterwards; calling it again takes that too.
    pub fn fill(&self) -> io::Result<u64> {
        let mut filler =
            OpenOptions::new().create(true).append(true).open(self.directory.join(FILLER))?;
        let mut filled = 0;
        for size in PIECES {
            let piece = vec![0; size];
            loop {
                match filler.write(&piece) {
                    Ok(0) => break,
                    Ok(written) => filled += u64::try_from(written).map_err(io::Error::other)?,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(filled)
    }

    /// Gives back what [`Self::fill`] has taken.
    pub fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.guardian.dismiss();
        unmount(&self.directory);
    }
}

fn unmount(directory: &Path) {
    // Lazily: a process that is about to be killed may still have a file open.
    let mut umount = Command::new("umount");
    umount.arg("-l").arg(directory);
    let removed = run(umount).and_then(|()| fs::remove_dir(directory).map_err(|e| e.to_string()));
    if let Err(error) = removed {
        tracing::warn!(error, directory = %directory.display(), "a small disk is left");
    }
}

/// Runs a command to its end; what it says when it fails.
fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        let Some(disk) = SmallDisk::require_or_skip(2 * MIB) else { return };
        let file = disk.path().join("file");
        fs::write(&file, "before").unwrap();
        let filled = disk.fill().unwrap();
        assert!(filled > MIB && filled <= 2 * MIB, "{filled}");
        let refused = fs::write(disk.path().join("other"), "during").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.fill().unwrap(), 0);
        disk.free().unwrap();
        disk.free().unwrap();
        fs::write(disk.path().join("other"), "after").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    }

    #[test]
    fn nothing_is_left_of_a_disk_that_was_dropped() {
        let Some(disk) = SmallDisk::require_or_skip(2 * MIB) else { return };
        let path = disk.path().to_owned();
        let _open = fs::File::create(path.join("open")).unwrap();
        drop(disk);
        assert!(!path.exists());
    }
}
