//! One of our own services as a process of its own.

use crate::supervisor::Supervised;
use anyhow::{Context as _, bail};
use local_engines::process::ManagedProcess;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest time from the start of a service to its listening.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest time for a service to finish what it has begun.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// How a service is started.
#[derive(Debug)]
pub(crate) struct ServiceSpec {
    pub(crate) name: &'static str,
    /// Where it listens, and the variable that tells it.
    pub(crate) listen: (&'static str, SocketAddr),
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) data_dir: PathBuf,
}

/// A running service.
#[derive(Debug)]
pub(crate) struct ServiceProcess {
    spec: ServiceSpec,
    process: ManagedProcess,
}

impl ServiceProcess {
    /// Starts the service and waits until it listens. From then on its address is fixed, so that
    /// clients find it again after a restart.
    pub(crate) fn start(mut spec: ServiceSpec) -> anyhow::Result<Self> {
        let (process, address) = launch(&spec)?;
        spec.listen.1 = address;
        Ok(Self { spec, process })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.spec.listen.1
    }
}

fn launch(spec: &ServiceSpec) -> anyhow::Result<(ManagedProcess, SocketAddr)> {
    let (address_file, log) = (
        spec.data_dir.join(format!("{}.address", spec.name)),
        spec.data_dir.join(format!("{}.log", spec.name)),
    );
    if address_file.exists() {
        std::fs::remove_file(&address_file)?;
    }
    let mut command = Command::new(sibling(spec.name)?);
    command
        .env("TALLYMARK_ADDRESS_FILE", &address_file)
        .env(spec.listen.0, spec.listen.1.to_string());
    command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
    let mut process = ManagedProcess::spawn(command, spec.name, &log)
        .with_context(|| format!("cannot start {}", spec.name))?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if let Ok(address) = std::fs::read_to_string(&address_file) {
            let address = address
                .trim()
                .parse()
                .with_context(|| format!("{} wrote `{address}` as its address", spec.name))?;
            return Ok((process, address));
        }
        if !process.is_running() {
            bail!("{} ended while it started; {} says why", spec.name, log.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{} did not listen within {START_LIMIT:?}; {} may say why", spec.name, log.display())
}

/// A program that was built together with this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let path = here.parent().unwrap_or(Path::new(".")).join(name);
    if path.is_file() {
        Ok(path)
    } else {
        bail!("{} is not there; build it with `cargo build --bins`", path.display())
    }
}

impl Supervised for ServiceProcess {
    fn name(&self) -> &'static str {
        self.spec.name
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.process = launch(&self.spec)?.0;
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.process.stop(STOP_LIMIT)?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.spec.name) }
    }
}
