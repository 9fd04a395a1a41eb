//! The embedded ClickHouse engine as a supervised child process.

mod supervise;

use crate::process::ManagedProcess;
use crate::{free_port, libchdb};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use supervise::Supervisor;

/// Longest time from the start of the process to its first answer; the library alone may take seconds to read.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest time for a clean stop: open statements get 20 s, stragglers 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(40);
const PROGRAM: &str = "embedded-clickhouse";
const SERVICE_USER: &str = "tallymark";
const READER_USER: &str = "tallymark_reader";

/// How to start the engine.
#[derive(Clone)]
pub struct EmbeddedClickHouseOptions {
    /// The program; found beside the running one when `None`.
    pub binary: Option<PathBuf>,
    /// libchdb.so, see [`crate::libchdb::ensure`].
    pub library: PathBuf,
    pub data_dir: PathBuf,
    /// A loopback port; a free one when `None`.
    pub listen: Option<u16>,
    pub service_password: String,
    pub reader_password: String,
    /// What the reader may read: a database, or a prefix of names followed by `*`.
    pub reader_database: String,
    /// Most memory of the engine, in bytes; the program's default when `None`.
    pub max_memory: Option<u64>,
    pub log_file: PathBuf,
    /// Start it again, on the same port, whenever it ends by itself.
    pub restart: bool,
}

impl std::fmt::Debug for EmbeddedClickHouseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedClickHouseOptions")
            .field("binary", &self.binary)
            .field("library", &self.library)
            .field("data_dir", &self.data_dir)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

/// The engine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the program {PROGRAM} is not beside {0}; build it with: cargo build -p {PROGRAM}")]
    NoProgram(PathBuf),
    #[error(transparent)]
    Library(#[from] libchdb::FetchError),
    #[error("cannot start {PROGRAM}")]
    Spawn(#[source] io::Error),
    #[error("{PROGRAM} ended at once: {0}")]
    Ended(String),
    #[error("{PROGRAM} did not answer within {limit} s: {0}", limit = START_LIMIT.as_secs())]
    Silent(String),
}

/// A running engine. Dropping it kills the process.
#[derive(Debug)]
pub struct EmbeddedClickHouse {
    supervisor: Supervisor,
    address: SocketAddr,
    options: EmbeddedClickHouseOptions,
    /// Removed when the engine is gone; fields are dropped in order.
    _scratch: Option<tempfile::TempDir>,
}

impl EmbeddedClickHouse {
    /// Starts the engine and waits until it answers. Blocks.
    pub fn start(mut options: EmbeddedClickHouseOptions) -> Result<Self, StartError> {
        options.binary = Some(find_program(options.binary.take())?);
        let port = options.listen.unwrap_or_else(free_port);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = launch(&options, address)?;
        let supervisor =
            Supervisor::start(process, options.clone(), address).map_err(StartError::Spawn)?;
        Ok(Self { supervisor, address, options, _scratch: None })
    }

    /// An engine on a temporary directory, whose reader may read every database.
    pub fn start_for_tests(binary: &Path) -> Result<Self, StartError> {
        let scratch = tempfile::tempdir().map_err(StartError::Spawn)?;
        let mut engine = Self::start(EmbeddedClickHouseOptions {
            binary: Some(binary.to_owned()),
            library: libchdb::ensure(true)?,
            data_dir: scratch.path().join("clickhouse"),
            listen: None,
            service_password: "service-password".to_owned(),
            reader_password: "reader-password".to_owned(),
            reader_database: "*".to_owned(),
            max_memory: None,
            log_file: scratch.path().join("clickhouse.log"),
            restart: false,
        })?;
        engine._scratch = Some(scratch);
        Ok(engine)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The user that may change tables.
    pub fn service_user(&self) -> &'static str {
        SERVICE_USER
    }

    pub fn service_password(&self) -> &str {
        &self.options.service_password
    }

    /// The user that may only read.
    pub fn reader_user(&self) -> &'static str {
        READER_USER
    }

    pub fn reader_password(&self) -> &str {
        &self.options.reader_password
    }

    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    pub fn log_file(&self) -> &Path {
        &self.options.log_file
    }

    /// The process that runs now, or ran last.
    pub fn pid(&self) -> u32 {
        self.supervisor.process().pid()
    }

    /// Whether the engine has not exited.
    pub fn is_running(&self) -> bool {
        self.supervisor.process().is_running()
    }

    /// How the process ended; `None` while it runs.
    pub fn exit_status(&self) -> io::Result<Option<ExitStatus>> {
        self.supervisor.process().exit_status()
    }

    /// SIGKILL. With `restart` it comes back, without it [`Self::start_again`] is needed.
    pub fn kill(&self) -> io::Result<()> {
        self.supervisor.process().kill()
    }

    /// SIGSTOP: clients wait for answers until [`Self::resume`].
    pub fn pause(&self) -> io::Result<()> {
        self.supervisor.process().pause()
    }

    pub fn resume(&self) -> io::Result<()> {
        self.supervisor.process().resume()
    }

    /// Starts an engine that was killed or stopped, on its old data and port. Blocks until it answers.
    pub fn start_again(&self) -> Result<(), StartError> {
        let process = launch(&self.options, self.address)?;
        *self.supervisor.process() = process;
        Ok(())
    }

    /// SIGTERM, then SIGKILL when that takes too long; whether it ended by itself and with success. It does not
    /// come back.
    pub fn stop(&self) -> io::Result<bool> {
        self.supervisor.give_up();
        self.supervisor.process().stop(STOP_LIMIT).map(|status| status.success())
    }
}

/// The program that was named, else the one beside the running program or, for tests, one directory above it.
fn find_program(named: Option<PathBuf>) -> Result<PathBuf, StartError> {
    let here = std::env::current_exe().map_err(StartError::Spawn)?;
    let candidates = match named {
        Some(named) => vec![named],
        None => here.ancestors().skip(1).take(2).map(|directory| directory.join(PROGRAM)).collect(),
    };
    candidates.into_iter().find(|path| path.is_file()).ok_or(StartError::NoProgram(here))
}

/// Starts the process and waits until it answers.
fn launch(
    options: &EmbeddedClickHouseOptions,
    address: SocketAddr,
) -> Result<ManagedProcess, StartError> {
    let mut command =
        Command::new(options.binary.as_ref().expect("the program was found at the start"));
    command.arg("--data-dir").arg(&options.data_dir);
    command.arg("--library").arg(&options.library);
    command.args(["--listen", &address.to_string(), "--reader-database", &options.reader_database]);
    command.args(["--service-user", SERVICE_USER, "--reader-user", READER_USER]);
    // Not as arguments, which every user of the machine can list.
    command.env("EMBEDDED_CLICKHOUSE_SERVICE_PASSWORD", &options.service_password);
    command.env("EMBEDDED_CLICKHOUSE_READER_PASSWORD", &options.reader_password);
    if let Some(bytes) = options.max_memory {
        command.args(["--max-memory", &bytes.to_string()]);
    }
    let mut process =
        ManagedProcess::spawn(command, PROGRAM, &options.log_file).map_err(StartError::Spawn)?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if !process.is_running() {
            return Err(StartError::Ended(last_lines(&options.log_file)));
        }
        if answers(address) {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(StartError::Silent(last_lines(&options.log_file)))
}

/// Whether `GET /ping` is answered well.
fn answers(address: SocketAddr) -> bool {
    let ping = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ping().unwrap_or(false)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
