//! A whole Tallymark as a person starts it: the `standalone` program on embedded engines or on servers.

use crate::sender::Sender;
use crate::sql::Reader;
use crate::wait;
use local_engines::process::{ManagedProcess, kill_pid};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a stack stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    /// One process on SQLite, with the ClickHouse engine as its child.
    Embedded,
    /// Separate services on Apache Kafka, Postgres and the ClickHouse engine.
    Servers,
}

/// A part of the stack that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    IngestApi,
    EventConsumer,
    Kafka,
    Postgres,
    ClickHouse,
}

impl Engines {
    /// Whether this machine can run a stack on these engines; says loudly when it cannot.
    ///
    /// # Panics
    /// When it cannot and `CI=true`.
    pub fn available(self) -> bool {
        let missing = match self {
            Self::Embedded => None,
            Self::Servers => ["java", "mvn"]
                .into_iter()
                .find(|program| !on_path(program))
                .or_else(|| no_postgres().then_some("postgresql")),
        };
        let found = missing.map_or(Ok(()), |program| {
            Err(format!(
                "{program} is not installed; `scripts/require servers` says how to install it"
            ))
        });
        local_engines::require_or_skip("Apache Kafka and Postgres", found).is_some()
    }
}

fn on_path(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$1\" >/dev/null", "sh", program])
        .status()
        .is_ok_and(|status| status.success())
}

fn no_postgres() -> bool {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|versions| {
        versions.flatten().any(|version| version.path().join("bin/initdb").is_file())
    });
    !packaged && !on_path("initdb")
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::IngestApi => "ingest-api",
            Self::EventConsumer => "event-consumer",
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::ClickHouse => "embedded-clickhouse",
        }
    }
}

/// A running stack with a data directory of its own. Dropping it kills every process and removes the data.
#[derive(Debug)]
pub struct Stack {
    engines: Engines,
    environment: Vec<(String, String)>,
    process: Option<ManagedProcess>,
    directory: tempfile::TempDir,
}

impl Stack {
    /// Starts a stack and waits until it has said that it is ready.
    ///
    /// # Panics
    /// When it does not get ready; the message ends with its log.
    pub fn start(engines: Engines, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        // A fixed port, so that clients find the API again after it was killed.
        environment.push((
            "TALLYMARK_LISTEN".to_owned(),
            format!("127.0.0.1:{}", local_engines::free_port()),
        ));
        // Stacks of tests run side by side; none may have the usual ports.
        for name in ["TALLYMARK_CLICKHOUSE_PORT", "TALLYMARK_ADMIN_PORT"] {
            environment.push((name.to_owned(), "0".to_owned()));
        }
        let mut stack = Self { engines, environment, process: None, directory };
        stack.launch();
        stack
    }

    fn launch(&mut self) {
        let demo_env = self.demo_env_path();
        if demo_env.exists() {
            std::fs::remove_file(&demo_env).expect("demo.env can be removed");
        }
        let mut command = Command::new(binary("standalone"));
        command.args([
            "--engines",
            if self.engines == Engines::Embedded { "embedded" } else { "servers" },
        ]);
        command.env("TALLYMARK_DATA_DIR", self.directory.path()).env("TALLYMARK_LOG", "info");
        // The test's own environment must not point the stack at somebody's real engines.
        for name in ["KAFKA_BROKERS", "CLICKHOUSE_URL", "DATABASE_URL"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        let process = ManagedProcess::spawn(command, "standalone", &self.log_path())
            .expect("standalone can be started");
        self.process = Some(process);
        self.await_ready();
    }

    /// Waits until the stack is up and the API answers.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn await_ready(&mut self) {
        let (demo_env, log) = (self.demo_env_path(), self.log_path());
        let process = self.process.as_mut().expect("the stack was launched");
        wait::until("the stack is ready", || {
            assert!(process.is_running(), "standalone ended: {}", tail(&log));
            let url = read_env(&demo_env)
                .remove("TALLYMARK_URL")
                .ok_or_else(|| format!("no demo.env yet: {}", tail(&log)))?;
            let ready =
                reqwest::blocking::get(format!("{url}/ready")).map_err(|e| e.to_string())?;
            if ready.status().is_success() {
                Ok(())
            } else {
                Err(format!("/ready answers {}", ready.status()))
            }
        });
    }

    /// SIGKILLs `part` and waits until it runs again.
    ///
    /// The supervisor restarts it, except for the services of the embedded stack, which are one process.
    pub fn crash(&mut self, part: Part) {
        self.crash_and(part, || ());
    }

    /// As [`Self::crash`], with `meanwhile` done after the kill and before the part runs again.
    pub fn crash_and(&mut self, part: Part, meanwhile: impl FnOnce()) {
        if self.engines == Engines::Embedded
            && matches!(part, Part::IngestApi | Part::EventConsumer)
        {
            self.process
                .as_mut()
                .expect("the stack was launched")
                .kill()
                .expect("standalone can be killed");
            meanwhile();
            self.launch();
            return;
        }
        let killed = self.kill(part);
        meanwhile();
        wait::until("the killed part runs again", || match self.pid(part) {
            Some(pid) if pid != killed => Ok(()),
            _ => Err(format!("{part:?} is still the one that was killed")),
        });
        self.await_ready();
    }

    /// SIGKILLs `part` and leaves it to the supervisor.
    ///
    /// # Panics
    /// When the part is not a process of this stack.
    pub fn kill(&self, part: Part) -> u32 {
        let pid =
            self.pid(part).unwrap_or_else(|| panic!("{part:?} is not a process of this stack"));
        kill_pid(pid).expect("a process of ours can be killed");
        pid
    }

    /// SIGTERM to the whole stack; whether it ended with success.
    ///
    /// # Panics
    /// When it cannot be asked to stop.
    pub fn stop(&mut self) -> bool {
        let mut process = self.process.take().expect("the stack was launched");
        process.stop(Duration::from_secs(60)).expect("standalone can be stopped").success()
    }

    /// Starts a stopped or killed stack on its old data.
    pub fn start_again(&mut self, environment: &[(&str, &str)]) {
        for (name, value) in environment {
            self.environment.retain(|(known, _)| known != name);
            self.environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        self.process = None;
        self.launch();
    }

    /// The process id of a part, as `demo.env` has it now.
    pub fn pid(&self, part: Part) -> Option<u32> {
        let pids = read_env(&self.demo_env_path()).remove("TALLYMARK_PIDS")?;
        pids.split(',')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == part.name())
            .and_then(|(_, pid)| pid.parse().ok())
    }

    /// A fact of `demo.env`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn fact(&self, name: &str) -> String {
        read_env(&self.demo_env_path())
            .remove(name)
            .unwrap_or_else(|| panic!("demo.env has no {name}"))
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.fact("CLICKHOUSE_URL"))
    }

    pub fn sender(&self) -> Sender {
        Sender::new(&self.fact("TALLYMARK_URL"), &self.fact("TALLYMARK_API_KEY"))
    }

    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// What the stack has logged last, for messages of failing tests.
    pub fn log_tail(&self) -> String {
        tail(&self.log_path())
    }

    fn demo_env_path(&self) -> PathBuf {
        self.directory.path().join("demo.env")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("standalone.log")
    }
}

impl Drop for Stack {
    /// A test that fails shows what the processes said; their logs go with the data.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["standalone", "ingest-api", "event-consumer", "clickhouse"] {
                let log = tail(&self.data_dir().join(format!("{name}.log")));
                drop(writeln!(std::io::stderr().lock(), "the end of {name}.log:\n{log}\n"));
            }
        }
    }
}

/// A program of this workspace, built beside the running test.
///
/// # Panics
/// When it was not built; the message says how.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.ancestors().find(|dir| dir.join(name).is_file());
    target.map(|dir| dir.join(name)).unwrap_or_else(|| {
        panic!(
            "{name} is not built; run `cargo build --workspace --bins` first, as `make test` does"
        )
    })
}

/// Reads lines of `NAME=value`, with or without single quotes around the value.
fn read_env(path: &Path) -> HashMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pairs =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
