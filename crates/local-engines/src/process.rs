//! Child processes that never outlive us, and that tests can kill, pause and stop.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running child process. Dropping it kills the process.
#[derive(Debug)]
pub struct ManagedProcess {
    name: String,
    child: Child,
    guardian: Guardian,
}

impl ManagedProcess {
    /// Starts `command`; what it prints is appended to `log_file`.
    pub fn spawn(mut command: Command, name: &str, log_file: &Path) -> io::Result<Self> {
        let log = open_log(log_file)?;
        // A group of its own: Ctrl-C in a terminal reaches only us, and we stop the children in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        match Guardian::watch(child.id()) {
            Ok(guardian) => Ok(Self { name: name.to_owned(), child, guardian }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has not exited yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL, also when it is paused, and waits until the process is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.guardian.dismiss();
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGSTOP: the process stands still until [`Self::resume`].
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGTERM, then SIGKILL after `grace`. Returns how the process ended.
    pub fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            self.guardian.dismiss();
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        // One that was paused can act on it only when it runs.
        self.resume()?;
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                self.guardian.dismiss();
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.guardian.dismiss();
        self.child.kill()?;
        self.child.wait()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(io::Error::from)
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        if self.is_running() && self.kill().is_err() {
            tracing::warn!(process = self.name, "could not be killed");
        }
        self.guardian.dismiss();
    }
}

/// SIGKILL to any process, such as a grandchild whose id was read from a file.
pub fn kill_pid(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(io::Error::from)
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// A shell that waits for its input to end, which happens when we die, and then kills the child.
///
/// A parent-death signal would be bound to the thread that spawned the child, and tests spawn on
/// threads that end before the process does.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
    _lifeline: Option<ChildStdin>,
}

impl Guardian {
    fn watch(pid: u32) -> io::Result<Self> {
        Self::run_after_us(r#"kill -KILL "$1" 2>/dev/null"#, pid.to_string().as_ref())
    }

    /// Runs a line of shell with one argument, `$1`, when we have died or [`Self`] is dropped.
    pub(crate) fn run_after_us(line: &str, argument: &OsStr) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .process_group(0)
            .args(["-c", &format!("read -r _; {line}"), "guardian"])
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let lifeline = shell.stdin.take();
        Ok(Self { shell, _lifeline: lifeline })
    }

    /// Ends the watch, for a child before its process id can be given to another process.
    pub(crate) fn dismiss(&mut self) {
        if matches!(self.shell.try_wait(), Ok(None))
            && self.shell.kill().and_then(|()| self.shell.wait()).is_err()
        {
            tracing::debug!("a guardian could not be dismissed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (ManagedProcess, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        (ManagedProcess::spawn(command, "sleep", &dir.path().join("log")).unwrap(), dir)
    }

    fn exists(pid: u32) -> bool {
        kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
    }

    #[test]
    fn a_process_is_gone_after_a_kill_and_after_a_drop() {
        let (mut process, _dir) = sleeper();
        assert!(process.is_running());
        process.kill().unwrap();
        assert!(!process.is_running());
        let (process, _dir) = sleeper();
        let pid = process.pid();
        drop(process);
        assert!(!exists(pid));
    }

    #[test]
    fn a_stop_asks_before_it_kills() {
        let (mut process, _dir) = sleeper();
        let status = process.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn a_paused_process_dies_of_a_kill_and_ends_when_it_is_asked_to() {
        let (mut process, _dir) = sleeper();
        process.pause().unwrap();
        process.kill().unwrap();
        assert!(!process.is_running());
        let (mut process, _dir) = sleeper();
        process.pause().unwrap();
        let status = process.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn the_guardian_kills_the_child_when_its_lifeline_is_cut() {
        let (mut process, _dir) = sleeper();
        process.guardian._lifeline = None;
        let status = process.child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
