//! A Postgres server from the programs of the machine, on data of its own: for tests, and for
//! machines without Docker.
//!
//! All calls block.

mod account;
mod programs;

use crate::free_port;
use crate::process::ManagedProcess;
use account::Account;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use programs::Programs;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const USER: &str = "tallymark";
/// Longest time for a start, which includes the recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server that ends at once is started again: the processes of one that was killed a
/// moment ago may still hold its memory or its lock.
const START_AGAIN_FOR: Duration = Duration::from_secs(5);
/// How long a server may take to roll back and write out when it is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LONGEST_DATABASE_NAME: usize = 63;

/// Where a server keeps what it needs.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Holds data, password and log. An initialised one is used again.
    pub data_dir: PathBuf,
}

/// Why there is no server, or why it did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "no Postgres server programs were found; install them with `apt-get install postgresql`"
    )]
    NotInstalled,
    #[error("{0}")]
    Unusable(String),
    #[error("{operation} failed")]
    Io { operation: &'static str, source: io::Error },
    #[error("{program} failed:\n{output}")]
    Program { program: &'static str, output: String },
}

/// A running server, which listens on loopback only and asks for a password.
///
/// Dropping it kills it; [`Postgres::stop`] is the orderly way.
pub struct Postgres {
    programs: Programs,
    account: Account,
    data_dir: PathBuf,
    port: u16,
    password: String,
    process: ManagedProcess,
}

impl Postgres {
    /// Starts a server on `data_dir`, which is initialised first when it is new.
    pub fn start(options: PostgresOptions) -> Result<Self, PostgresError> {
        let programs = Programs::find()?;
        fs::create_dir_all(&options.data_dir).map_err(io_error("making the data directory"))?;
        let data_dir =
            options.data_dir.canonicalize().map_err(io_error("finding the data directory"))?;
        let account = Account::choose(&data_dir, &data_dir.join("pgdata"))?;
        let password = initialise(&programs, &account, &data_dir)?;
        let (process, port) = launch(&programs, &account, &data_dir, free_port)?;
        Ok(Self { programs, account, data_dir, port, password, process })
    }

    /// The URL of a database of this server. It holds the password.
    pub fn url(&self, database: &str) -> String {
        let Self { password, port, .. } = self;
        format!("postgres://{USER}:{password}@127.0.0.1:{port}/{database}")
    }

    /// Makes a database if it does not exist.
    pub fn create_database(&self, name: &str) -> Result<(), PostgresError> {
        check_database_name(name)?;
        self.psql(
            name,
            "SELECT format('CREATE DATABASE %I', :'name')
             WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name')\\gexec",
        )
    }

    /// The loopback port, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server's first process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether the server has not exited.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// SIGKILL to all of the server's processes at once, as if the machine had lost power.
    pub fn kill(&mut self) -> Result<(), PostgresError> {
        // Stopped, so that it starts no process while they are counted.
        self.signal(Signal::SIGSTOP);
        let children = self.children();
        self.process.kill().map_err(io_error("killing Postgres"))?;
        send(&children, Signal::SIGKILL);
        Ok(())
    }

    /// All of the server's processes stand still until [`Self::resume`]; connections stay open.
    pub fn pause(&self) -> Result<(), PostgresError> {
        self.process.pause().map_err(io_error("pausing Postgres"))?;
        send(&self.children(), Signal::SIGSTOP);
        Ok(())
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) -> Result<(), PostgresError> {
        send(&self.children(), Signal::SIGCONT);
        self.process.resume().map_err(io_error("resuming Postgres"))
    }

    /// Stops the server if it runs, and starts it on the same port and data.
    pub fn restart(&mut self) -> Result<(), PostgresError> {
        self.stop()?;
        let port = self.port;
        let (process, _) = launch(&self.programs, &self.account, &self.data_dir, || port)?;
        self.process = process;
        Ok(())
    }

    /// Ends all connections and stops in order; kills what does not stop within 30 s.
    pub fn stop(&mut self) -> Result<(), PostgresError> {
        if self.process.is_running() {
            // SIGTERM would wait until every client has gone.
            self.signal(Signal::SIGINT);
        }
        self.process.stop(STOP_LIMIT).map(drop).map_err(io_error("stopping Postgres"))
    }

    fn psql(&self, name: &str, script: &str) -> Result<(), PostgresError> {
        let mut command = Command::new(&self.programs.psql);
        command
            .args(["--no-psqlrc", "--quiet", "--host=127.0.0.1", "--dbname=postgres"])
            .args(["--set=ON_ERROR_STOP=1", &format!("--set=name={name}")])
            .args([format!("--port={}", self.port), format!("--username={USER}")])
            .env("PGPASSWORD", &self.password)
            .current_dir("/");
        run("psql", command, script)
    }

    fn signal(&self, signal: Signal) {
        send(&[self.process.pid()], signal);
    }

    fn children(&self) -> Vec<u32> {
        children_of(self.process.pid())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_running()
            && let Err(error) = self.kill()
        {
            tracing::warn!(%error, "postgres could not be killed");
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data_dir, port, process, .. } = self;
        f.debug_struct("Postgres")
            .field("data_dir", data_dir)
            .field("port", port)
            .field("pid", &process.pid())
            .finish_non_exhaustive()
    }
}

/// Makes the data of a new server; returns the password of new and old ones.
fn initialise(
    programs: &Programs,
    account: &Account,
    data_dir: &Path,
) -> Result<String, PostgresError> {
    let (data, password_file) = (data_dir.join("pgdata"), data_dir.join("password"));
    if data.exists() {
        programs.check_version(&data)?;
        return fs::read_to_string(&password_file).map_err(io_error("reading the password"));
    }
    account.own(data_dir)?;
    let password = random_password().map_err(io_error("making a password"))?;
    write_secret(&password_file, &password).map_err(io_error("writing the password"))?;
    account.own(&password_file)?;
    // Made aside and renamed, so that what exists is complete.
    let unfinished = data_dir.join("pgdata.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(io_error("removing unfinished data"))?;
    }
    let mut command = account.command(&programs.initdb);
    command
        .arg(format!("--pgdata={}", unfinished.display()))
        .arg(format!("--pwfile={}", password_file.display()))
        .arg(format!("--username={USER}"))
        .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
        .current_dir(data_dir);
    run("initdb", command, "")?;
    fs::rename(&unfinished, &data).map_err(io_error("finishing the data directory"))?;
    Ok(password)
}

/// Starts the server and waits until it takes connections.
fn launch(
    programs: &Programs,
    account: &Account,
    data_dir: &Path,
    mut port: impl FnMut() -> u16,
) -> Result<(ManagedProcess, u16), PostgresError> {
    let begin = Instant::now();
    loop {
        let port = port();
        let mut process = spawn(programs, account, data_dir, port)?;
        while process.is_running() && begin.elapsed() < START_LIMIT {
            if is_ready(data_dir, process.pid()) {
                return Ok((process, port));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if process.is_running() || begin.elapsed() >= START_AGAIN_FOR {
            return Err(PostgresError::Program {
                program: "postgres",
                output: last_lines(&log_file(data_dir)),
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn spawn(
    programs: &Programs,
    account: &Account,
    data_dir: &Path,
    port: u16,
) -> Result<ManagedProcess, PostgresError> {
    let mut command = account.command(&programs.postgres);
    command.arg("-D").arg(data_dir.join("pgdata"));
    for setting in [
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        // The path of a socket has at most 107 bytes, which data directories exceed.
        "unix_socket_directories=",
        // What was committed survives a power cut.
        "fsync=on",
        "synchronous_commit=on",
        "shared_buffers=64MB",
        "logging_collector=off",
    ] {
        command.args(["-c", setting]);
    }
    // Out of the terminal's group: Ctrl-C is for the services, which still need the server to stop.
    command.current_dir(data_dir).process_group(0);
    ManagedProcess::spawn(command, "postgres", &log_file(data_dir))
        .map_err(io_error("starting postgres"))
}

/// The lock file tells the server's state in its eighth line.
fn is_ready(data_dir: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("pgdata/postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines();
    lines.next() == Some(pid.to_string().as_str())
        && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

fn run(program: &'static str, mut command: Command, input: &str) -> Result<(), PostgresError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command
        .spawn()
        .and_then(|mut child| {
            // Dropped after writing, which ends the input.
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()))?;
            child.wait_with_output()
        })
        .map_err(io_error(program))?;
    if output.status.success() {
        return Ok(());
    }
    let output = [output.stdout, output.stderr].concat();
    Err(PostgresError::Program { program, output: String::from_utf8_lossy(&output).into_owned() })
}

/// The direct children of a process; none on systems without `/proc`.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|child| parent_of(*child) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything; then come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process that has ended meanwhile needs no signal.
fn send(pids: &[u32], signal: Signal) {
    for pid in pids {
        let outcome = i32::try_from(*pid).map(|pid| kill(Pid::from_raw(pid), signal));
        tracing::trace!(pid, %signal, ?outcome, "signal sent");
    }
}

fn check_database_name(name: &str) -> Result<(), PostgresError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=LONGEST_DATABASE_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(PostgresError::Unusable(format!(
        "a database name has 1 to {LONGEST_DATABASE_NAME} of a-z, 0-9 and _: `{name}`"
    )))
}

/// 128 random bits, in hexadecimal.
fn random_password() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(secret.as_bytes())
}

fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres.log")
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> PostgresError {
    move |source| PostgresError::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_database_names_are_taken() {
        for good in ["a", "tallymark_1", &"d".repeat(LONGEST_DATABASE_NAME)] {
            check_database_name(good).unwrap();
        }
        for bad in ["", "A", "a-b", "a\"b", "a;b", &"d".repeat(LONGEST_DATABASE_NAME + 1)] {
            check_database_name(bad).unwrap_err();
        }
    }

    #[test]
    fn a_server_is_ready_when_its_own_lock_file_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let write = |pid: u32, state: &str| {
            let text = format!("{pid}\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\n{state}\n");
            fs::create_dir_all(dir.path().join("pgdata")).unwrap();
            fs::write(dir.path().join("pgdata/postmaster.pid"), text).unwrap();
        };
        assert!(!is_ready(dir.path(), 7));
        write(7, "starting");
        assert!(!is_ready(dir.path(), 7));
        write(7, "ready   ");
        assert!(is_ready(dir.path(), 7));
        assert!(!is_ready(dir.path(), 8));
    }

    #[test]
    fn a_process_knows_its_children() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(children_of(std::process::id()).contains(&child.id()));
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
