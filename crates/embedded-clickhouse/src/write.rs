//! The `write` that libchdb calls: it waits for space, and ends the process when anything else fails.
//!
//! libchdb 26.7.3 takes no notice of a `write(2)` that failed. It goes on as if the bytes were in the file: it
//! acknowledges inserts and keeps merged parts whose files are empty (docs/decisions/0007-a-write-never-fails.md).
//! The dynamic linker looks for a function in the program before it looks into libraries, so libchdb's calls
//! arrive here. So do those of the program itself, which is why this is not in the crate's library.

#![expect(unsafe_code, reason = "a C function, called by C++; each block states why it is sound")]

use embedded_clickhouse::ffi::exit_at_once;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;

/// How often a write that found no space is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many writes wait for space.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Whether none may wait any longer.
static ENDING: AtomicBool = AtomicBool::new(false);

/// `write(2)`, which for a file of the engine returns when all bytes are written, and never with a failure.
///
/// # Safety
/// `bytes` must point to `count` readable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    let mut done = 0;
    let mut waiting = None;
    loop {
        // SAFETY: `done` never exceeds `count`, so the rest lies within the caller's bytes.
        let written = unsafe { attempt(fd, bytes.byte_add(done), count - done) };
        match written {
            Ok(written) if done + written == count || !keeps_data(fd) => {
                return isize::try_from(done + written).expect("no buffer is larger");
            }
            Ok(0) => end(&io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if !keeps_data(fd) => {
                // SAFETY: the place of this thread's error is always valid. It was overwritten by the look at the file.
                unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EIO) };
                return -1;
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::ENOSPC | libc::EDQUOT) if !ENDING.load(Ordering::Relaxed) => {
                    waiting.get_or_insert_with(Waiting::begin);
                    std::thread::sleep(LOOK_EVERY);
                }
                _ => end(&error),
            },
        }
    }
}

/// The system call.
///
/// # Safety
/// `bytes` must point to `count` readable bytes.
unsafe fn attempt(fd: c_int, bytes: *const c_void, count: usize) -> io::Result<usize> {
    // SAFETY: the caller vouches for the bytes, which the kernel only reads.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Whether this is a regular file other than the standard ones: a lost line of a log must not hold anything up.
fn keeps_data(fd: c_int) -> bool {
    let mut file = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the whole structure when it returns 0, and it is read in no other case.
    let kind = unsafe {
        if libc::fstat(fd, file.as_mut_ptr()) != 0 {
            return false;
        }
        file.assume_init().st_mode & libc::S_IFMT
    };
    fd > libc::STDERR_FILENO && kind == libc::S_IFREG
}

fn end(error: &io::Error) -> ! {
    tracing::error!(
        %error,
        "a write to a file of the engine failed, which the engine would not notice; it ends here and recovers at the next start"
    );
    exit_at_once(1)
}

/// A write that waits for space.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        if WAITING.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("the disk is full: the engine's writes wait until there is space");
        }
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if WAITING.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("there is space again: none of the engine's writes waits");
        }
    }
}

/// From now on a write that finds no space ends the process, as nothing else could.
pub(crate) fn stop_waiting() {
    ENDING.store(true, Ordering::Relaxed);
}

/// Whether libraries that are loaded from now on get this `write`.
pub(crate) fn is_found_by_libraries() -> bool {
    let program = libloading::os::unix::Library::this();
    // SAFETY: every `write` has this signature, and it is compared only.
    let found = unsafe { program.get::<Write>(b"write\0") };
    found.is_ok_and(|found| std::ptr::fn_addr_eq(*found, write as Write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    #[test]
    fn libraries_find_it() {
        assert!(is_found_by_libraries());
    }

    #[test]
    fn what_is_no_file_of_the_engine_gets_its_failures_and_short_writes() {
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(full.write(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        let (mut reader, mut writer) = io::pipe().unwrap();
        assert_eq!(writer.write(b"abc").unwrap(), 3);
        let mut read = [0; 3];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"abc");
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_regular_file_gets_all_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(file.write(b"").unwrap(), 0);
        assert_eq!(file.write(&[7; 100_000]).unwrap(), 100_000);
        assert_eq!(file.metadata().unwrap().len(), 100_000);
    }
}
