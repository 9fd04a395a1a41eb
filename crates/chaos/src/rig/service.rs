//! A service of the stack as a process that is killed, paused and told to commit faults.

use crate::fault::{Process, Stop};
use anyhow::{Context as _, bail};
use fault_injection::{Action, Point, Sabotage};
use local_engines::process::ManagedProcess;
use serde::Serialize;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use testkit::stack::binary;

/// How a service is started.
#[derive(Debug)]
pub(crate) struct ServiceSpec {
    pub(crate) process: Process,
    /// The name of the program.
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) environment: Vec<(String, String)>,
    /// Where it says that it is ready.
    pub(crate) ready_url: String,
    /// For its log and its fault directory.
    pub(crate) directory: PathBuf,
}

/// A service, which is started again whenever it has ended, unless it is held down.
#[derive(Debug)]
pub struct Service {
    spec: ServiceSpec,
    fault_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    process: Option<ManagedProcess>,
    /// Settings that take the place of those it was first started with.
    changed: Vec<(String, String)>,
    /// Whether a fault keeps it from being started again.
    held: bool,
    /// Since when it runs without having said that it is ready.
    starting: Option<Instant>,
    starts: Starts,
}

/// How often a service was started again, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Starts {
    pub restarts: u32,
    /// Longest time from a start to the answer that it is ready, in milliseconds. While other faults
    /// last it includes the wait for their end.
    pub longest_ms: u64,
}

impl Service {
    pub(crate) fn start(spec: ServiceSpec, sabotage: Option<Sabotage>) -> anyhow::Result<Self> {
        let fault_dir = spec.directory.join(format!("{}.faults", spec.process));
        fs::create_dir_all(&fault_dir)?;
        if let Some(sabotage) = sabotage {
            fs::write(fault_dir.join("sabotage"), sabotage.name())?;
        }
        let state = State {
            process: None,
            changed: Vec::new(),
            held: false,
            starting: None,
            starts: Starts::default(),
        };
        let service = Self { spec, fault_dir, state: Mutex::new(state) };
        service.launch(&mut service.state())?;
        Ok(service)
    }

    pub fn process(&self) -> Process {
        self.spec.process
    }

    pub fn log_path(&self) -> PathBuf {
        self.spec.directory.join(format!("{}.log", self.spec.process))
    }

    fn launch(&self, state: &mut State) -> anyhow::Result<()> {
        let mut command = Command::new(binary(self.spec.program));
        command.args(&self.spec.arguments);
        for name in ["KAFKA_BROKERS", "CLICKHOUSE_URL", "DATABASE_URL"] {
            command.env_remove(name);
        }
        command
            .env("TALLYMARK_FAULT_DIR", &self.fault_dir)
            .envs(self.spec.environment.iter().map(|(name, value)| (name, value)))
            .envs(state.changed.iter().map(|(name, value)| (name, value)));
        let name = self.spec.process.to_string();
        let process = ManagedProcess::spawn(command, &name, &self.log_path())
            .with_context(|| format!("cannot start {name}"))?;
        state.process = Some(process);
        state.starting = Some(Instant::now());
        Ok(())
    }

    /// SIGKILL; nothing starts it again before [`Self::release`].
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.held = true;
        if let Some(mut process) = state.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Lets it be started again.
    pub fn release(&self) {
        self.state().held = false;
    }

    /// From its next start on.
    pub fn set(&self, name: &str, value: &str) {
        self.state().changed.push((name.to_owned(), value.to_owned()));
    }

    pub fn pause(&self) -> anyhow::Result<()> {
        self.unless_ended(ManagedProcess::pause)
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.unless_ended(ManagedProcess::resume)
    }

    fn unless_ended(
        &self,
        signal: impl Fn(&ManagedProcess) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut state = self.state();
        match state.process.as_mut().and_then(|process| process.is_running().then_some(process)) {
            Some(process) => Ok(signal(process)?),
            None => Ok(()),
        }
    }

    pub fn arm(&self, point: Point, stop: Stop) -> anyhow::Result<()> {
        let action = match stop {
            Stop::Abort => Action::Abort,
            Stop::Stall { milliseconds } => {
                Action::Stall(Duration::from_millis(milliseconds.into()))
            }
            Stop::Error => Action::Error,
        };
        Ok(action.arm(&self.fault_dir, point)?)
    }

    /// Whether what was armed last for `point` has happened.
    pub fn has_fired(&self, point: Point) -> bool {
        point.has_fired(&self.fault_dir)
    }

    /// Takes back what has not happened.
    pub fn disarm(&self, point: Point) -> anyhow::Result<()> {
        remove(&self.fault_dir.join(point.name()))
    }

    pub fn shift_clock(&self, milliseconds: i64) -> anyhow::Result<()> {
        Ok(fs::write(self.fault_dir.join("clock"), milliseconds.to_string())?)
    }

    pub fn right_clock(&self) -> anyhow::Result<()> {
        remove(&self.fault_dir.join("clock"))
    }

    pub fn starts(&self) -> Starts {
        self.state().starts
    }

    /// Starts it when it has ended, and notes when it is ready. Called again and again.
    pub(crate) fn supervise(&self, http: &reqwest::blocking::Client) -> anyhow::Result<()> {
        let mut state = self.state();
        if !state.held && !state.process.as_mut().is_some_and(ManagedProcess::is_running) {
            state.starts.restarts += 1;
            return self.launch(&mut state);
        }
        let Some(since) = state.starting.filter(|_| !state.held) else { return Ok(()) };
        drop(state);
        if self.is_ready(http) {
            let took = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut state = self.state();
            if state.starting.take_if(|started| *started == since).is_some() {
                state.starts.longest_ms = state.starts.longest_ms.max(took);
            }
        }
        Ok(())
    }

    pub fn is_ready(&self, http: &reqwest::blocking::Client) -> bool {
        http.get(&self.spec.ready_url).send().is_ok_and(|answer| answer.status().is_success())
    }

    /// SIGTERM, and whether it ended in time and with success.
    pub fn stop(&self, limit: Duration) -> anyhow::Result<()> {
        let mut state = self.state();
        state.held = true;
        let Some(mut process) = state.process.take() else { return Ok(()) };
        let status = process.stop(limit)?;
        if !status.success() {
            bail!("{} ended with {status}", self.spec.process);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of an endpoint that a restart must not change.
pub(crate) fn fixed_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], local_engines::free_port()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
