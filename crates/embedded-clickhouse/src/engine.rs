//! The engine in this process: its data directory, its configuration, and a session for each request.

mod files;

use crate::access::Role;
use crate::exception::{Exception, NO_FREE_CONNECTION};
use crate::ffi::{ConnectError, Connection, Library, LoadError};
use crate::settings::{Settings, quoted};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use files::EngineSettings;

/// Longest wait for the data directory.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(5);

/// The engine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot prepare the data directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    #[error("the path {0} is not valid UTF-8")]
    Path(PathBuf),
    #[error(transparent)]
    Library(#[from] LoadError),
    #[error(
        "the engine did not start. If TOO_MANY_UNEXPECTED_DATA_PARTS is in what it said above, a part of a table is \
         damaged, and the engine would bill without its rows. The way back (docs/operations.md): stop the services; \
         touch '{flag}'; `tallymark replay --from earliest`; `tallymark reconcile`; start the services",
        flag = flag.display()
    )]
    Boot { flag: PathBuf, source: ConnectError },
    #[error("the engine started but does not work: {0}")]
    Broken(Exception),
}

/// What a session is to be like before its one statement.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub role: Role,
    pub database: Option<String>,
    pub settings: Settings,
    /// Marks the session's statement, so that it can be found and cancelled.
    pub tag: String,
}

/// The running engine. One per process.
#[derive(Debug)]
pub struct Engine {
    library: &'static Library,
    path_argument: String,
    /// The engine lives as long as it has a connection: this one.
    keeper: Mutex<Option<Connection>>,
    /// Held, not used: the lock on the data directory ends with the process.
    _lock: File,
}

impl Engine {
    /// Locks `data_dir`, writes the configuration into it and boots the engine. Blocks for up to a second.
    pub fn start(
        data_dir: &Path,
        library: &Path,
        settings: &EngineSettings<'_>,
    ) -> Result<Self, StartError> {
        let directory = |source| StartError::Directory { path: data_dir.to_owned(), source };
        std::fs::create_dir_all(data_dir).map_err(directory)?;
        let data_dir = data_dir.canonicalize().map_err(directory)?;
        let lock = lock(&data_dir, PREDECESSOR_WAIT)?;
        let config = files::write(&data_dir, settings)?;
        let path_argument = format!("--path={}", utf8(&data_dir.join("engine"))?);
        // Where a person puts the file with which the engine sets damaged parts aside, once.
        let flags = data_dir.join("engine/flags");
        std::fs::create_dir_all(&flags).map_err(directory)?;
        let library = Library::load(library)?;
        let boot = [
            path_argument.clone(),
            format!("--config-file={config}"),
            "--log-level=warning".to_owned(),
        ];
        let boot_error =
            |source| StartError::Boot { flag: flags.join("force_restore_data"), source };
        let mut keeper = library.connect(&boot).map_err(boot_error)?;
        keeper
            .query(b"SELECT getSetting('implicit_select'), getSetting('async_insert')", "TSV", &[])
            .map_err(|error| Exception::from_engine(&error))
            .and_then(|answer| match answer.bytes() {
                b"false\tfalse\n" => Ok(()),
                _ => Err(Exception::new(
                    NO_FREE_CONNECTION,
                    "the engine did not take its configuration",
                )),
            })
            .map_err(StartError::Broken)?;
        Ok(Self { library, path_argument, keeper: Mutex::new(Some(keeper)), _lock: lock })
    }

    /// The library's release.
    pub fn version(&self) -> String {
        self.library.version()
    }

    /// Opens a session with a role, a database and settings. Every request gets a session of its own, so nothing
    /// of one request can be seen by another. Takes about half a millisecond.
    pub fn session(&self, wanted: &Wanted) -> Result<Connection, Exception> {
        let mut session = self.connect()?;
        let mut run = |sql: &str| {
            session
                .query(sql.as_bytes(), "TSV", &[])
                .map(drop)
                .map_err(|error| Exception::from_engine(&error))
        };
        run(&format!("SET ROLE {}", wanted.role.name()))?;
        if let Some(database) = &wanted.database {
            run(&format!("USE `{}`", database.replace('\\', "\\\\").replace('`', "\\`")))?;
        }
        run(&wanted.settings.statement(&wanted.tag))?;
        Ok(session)
    }

    /// Asks the engine to stop the statements marked with `tag`.
    pub fn kill(&self, tag: &str) -> Result<(), Exception> {
        let sql = format!("KILL QUERY WHERE Settings['log_comment'] = {} ASYNC", quoted(tag));
        let stopped = self.connect()?.query(sql.as_bytes(), "Null", &[]);
        stopped.map(drop).map_err(|error| Exception::from_engine(&error))
    }

    /// Closes the last connection, at which the engine flushes and closes its tables. Sessions fail from now on.
    pub fn close(&self) {
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn connect(&self) -> Result<Connection, Exception> {
        let open = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        // Without the keeper, a connection would boot the engine again.
        open.then(|| self.library.connect(std::slice::from_ref(&self.path_argument)).ok())
            .flatten()
            .ok_or_else(|| Exception::new(NO_FREE_CONNECTION, "the engine gives no connection"))
    }
}

/// Takes the lock; a predecessor that was killed may need up to `wait` to be gone.
fn lock(data_dir: &Path, wait: Duration) -> Result<File, StartError> {
    let directory = |source| StartError::Directory { path: data_dir.to_owned(), source };
    let lock = File::create(data_dir.join("lock")).map_err(directory)?;
    let deadline = Instant::now() + wait;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(wait / 100);
            }
            Err(TryLockError::WouldBlock) => return Err(StartError::InUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(directory(source)),
        }
    }
}

fn utf8(path: &Path) -> Result<&str, StartError> {
    path.to_str().ok_or_else(|| StartError::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_locked_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let lock = || lock(directory.path(), Duration::from_millis(100));
        let first = lock().unwrap();
        assert!(matches!(lock(), Err(StartError::InUse(_))));
        drop(first);
        assert!(lock().is_ok());
    }
}
