//! A whole Tallymark with real engines, each part of which can be broken while it works.
//!
//! Every part is a process of its own and every connection between parts leads through a proxy.
//! Services that end are started again, as a supervisor in production would.

mod embedded;
mod servers;
mod service;
mod tenant;

pub use service::{Service, Starts};
pub use tenant::Tenant;

use crate::fault::{Disk, Fault, Link, LinkFault, Process};
use crate::poison::Poisoner;
use crate::schedule::Targets;
use anyhow::{Context as _, bail};
use fault_injection::Sabotage;
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::kafka::Kafka;
use local_engines::postgres::Postgres;
use local_engines::small_disk::SmallDisk;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::proxy::{self, Direction, Proxy};
use testkit::sql::Reader;
use testkit::stack::Engines;

/// Longest time for the stack to be ready when no fault lasts.
pub const READY_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A probe that takes longer is answered "not ready".
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Longest time for a service to finish what it has begun.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How large a disk is that can be filled, in bytes.
const SMALL_DISK_BYTES: u64 = 768 * 1024 * 1024;

/// What stack to start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub engines: Engines,
    /// On servers: 1 or 3.
    pub brokers: u8,
    /// On servers: members of the consumer group.
    pub consumers: u8,
    /// Whether data lies on small disks, where the machine permits it.
    pub small_disks: bool,
    pub sabotage: Option<Sabotage>,
    /// Further settings of every service.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// What random schedules run on: one process on embedded engines, or two consumers on three brokers.
    pub fn new(engines: Engines) -> Self {
        Self {
            engines,
            brokers: 3,
            consumers: 2,
            small_disks: true,
            sabotage: None,
            environment: Vec::new(),
        }
    }
}

/// A running stack. Dropping it kills every process and removes the data.
#[derive(Debug)]
pub struct Rig {
    supervisor: Option<Supervisor>,
    services: Arc<Vec<Service>>,
    links: BTreeMap<Link, Proxy>,
    clickhouse: EmbeddedClickHouse,
    kafka: Option<Kafka>,
    poisoner: Option<Mutex<Poisoner>>,
    /// Poison records that were written, and how many of them are certainly in the log.
    poisoned: Mutex<(u64, u64)>,
    database: Option<Mutex<Postgres>>,
    tenants: Vec<Tenant>,
    disks: BTreeMap<Disk, SmallDisk>,
    directory: tempfile::TempDir,
}

impl Rig {
    /// Starts the stack and returns once it accepts events.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        match setup.engines {
            Engines::Embedded => embedded::start(setup),
            Engines::Servers => servers::start(setup),
        }
    }

    /// Everything that can be broken.
    pub fn targets(&self) -> Targets {
        let mut processes: Vec<_> = self.services.iter().map(Service::process).collect();
        processes.push(Process::ClickHouse);
        processes.extend(self.database.iter().map(|_| Process::Database));
        processes.extend(self.brokers());
        Targets {
            processes,
            links: self.links.keys().copied().collect(),
            disks: self.disks.keys().copied().collect(),
            open_log: self.poisoner.is_some(),
        }
    }

    fn brokers(&self) -> impl Iterator<Item = Process> {
        let brokers = self.links.keys().filter_map(|link| match link {
            Link::ServicesToBroker(number) => Some(Process::Broker(*number)),
            _ => None,
        });
        brokers.filter(|_| self.kafka.is_some())
    }

    /// Begins a fault.
    pub fn apply(&self, fault: &Fault) -> anyhow::Result<()> {
        match *fault {
            Fault::Kill(process) => self.kill(process),
            Fault::Pause(process) => self.pause(process),
            Fault::Link(link, fault) => {
                self.link(link)?.set(on_the_wire(fault));
                Ok(())
            }
            Fault::Point(process, point, stop) => self.service(process)?.arm(point, stop),
            Fault::FullDisk(disk) => {
                self.disk(disk)?.fill()?;
                Ok(())
            }
            Fault::ClockShift { process, milliseconds } => {
                self.service(process)?.shift_clock(milliseconds)
            }
            Fault::Poison { records } => self.poison(records.into()),
        }
    }

    /// Ends a fault. What it has broken recovers by itself, except that engines are started again.
    pub fn lift(&self, fault: &Fault) -> anyhow::Result<()> {
        match *fault {
            Fault::Kill(process) => self.start_again(process),
            Fault::Pause(process) => self.resume(process),
            Fault::Link(link, _) => {
                self.link(link)?.set(proxy::Fault::None);
                Ok(())
            }
            Fault::Point(process, point, _) => self.service(process)?.disarm(point),
            Fault::FullDisk(disk) => {
                self.disk(disk)?.free()?;
                // A broker whose disk is full gives up.
                match disk {
                    Disk::Broker(number) => self.start_unless_running(number),
                    Disk::Log | Disk::ClickHouse => Ok(()),
                }
            }
            Fault::ClockShift { process, .. } => self.service(process)?.right_clock(),
            Fault::Poison { .. } => Ok(()),
        }
    }

    fn poison(&self, records: u64) -> anyhow::Result<()> {
        let poisoner = self.poisoner.as_ref().context("nobody else can write into this log")?;
        let poisoner = poisoner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        let confirmed = poisoner.publish(poisoned.0, records);
        *poisoned = (poisoned.0 + records, poisoned.1 + confirmed);
        Ok(())
    }

    /// How many poison records are certainly in the log.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn kill(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.kill(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.kill()?),
            Process::Database => Ok(self.database()?.kill()?),
            _ => self.service(process)?.kill(),
        }
    }

    fn start_again(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.restart(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.start_again()?),
            Process::Database => Ok(self.database()?.restart()?),
            _ => {
                self.service(process)?.release();
                Ok(())
            }
        }
    }

    fn start_unless_running(&self, broker: u8) -> anyhow::Result<()> {
        let kafka = self.kafka()?;
        if kafka.is_running(broker.into()) {
            return Ok(());
        }
        Ok(kafka.restart(broker.into())?)
    }

    fn pause(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.pause(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.pause()?),
            Process::Database => Ok(self.database()?.pause()?),
            _ => self.service(process)?.pause(),
        }
    }

    fn resume(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.resume(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.resume()?),
            Process::Database => Ok(self.database()?.resume()?),
            _ => self.service(process)?.resume(),
        }
    }

    /// A service by its place in the stack.
    pub fn service(&self, process: Process) -> anyhow::Result<&Service> {
        let found = self.services.iter().find(|service| service.process() == process);
        found.with_context(|| format!("{process} is not a service of this stack"))
    }

    pub fn services(&self) -> &[Service] {
        &self.services
    }

    pub fn link(&self, link: Link) -> anyhow::Result<&Proxy> {
        self.links.get(&link).with_context(|| format!("this stack has no {link:?}"))
    }

    fn disk(&self, disk: Disk) -> anyhow::Result<&SmallDisk> {
        self.disks.get(&disk).with_context(|| format!("this stack has no small disk {disk:?}"))
    }

    pub fn kafka(&self) -> anyhow::Result<&Kafka> {
        self.kafka.as_ref().context("this stack has no Kafka")
    }

    fn database(&self) -> anyhow::Result<MutexGuard<'_, Postgres>> {
        let database = self.database.as_ref().context("this stack has no database server")?;
        Ok(database.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// Where clients reach the API: through its proxy.
    pub fn api_url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.link(Link::ClientToApi)?.address()))
    }

    /// ClickHouse for a person, around the proxies.
    pub fn reader_url(&self) -> String {
        let Self { clickhouse, .. } = self;
        format!(
            "http://{}:{}@{}/?database=tallymark",
            clickhouse.reader_user(),
            clickhouse.reader_password(),
            clickhouse.address()
        )
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.reader_url())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Process ids by name, for a load generator that measures what they use.
    pub fn pids(&self) -> Vec<(String, u32)> {
        let services = self.services.iter();
        services
            .filter_map(|service| Some((service.process().to_string(), service.pid()?)))
            .collect()
    }

    /// Waits until every service says that it is ready.
    pub fn await_ready(&self) -> anyhow::Result<()> {
        let http = probe_client()?;
        within(READY_LIMIT, "every service is ready", || {
            match self.services.iter().find(|service| !service.is_ready(&http)) {
                None => Ok(()),
                Some(service) => Err(format!("{} is not", service.process())),
            }
        })
    }

    /// SIGTERM to every service; an error when one does not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        drop(self.supervisor.take());
        self.services.iter().try_for_each(|service| service.stop(STOP_LIMIT))
    }

    /// Keeps the data and the logs when the rig goes, and says where they are.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

fn on_the_wire(fault: LinkFault) -> proxy::Fault {
    match fault {
        LinkFault::Cut => proxy::Fault::Cut,
        LinkFault::RefuseNew => proxy::Fault::RefuseNew,
        LinkFault::BlackHole => proxy::Fault::BlackHole,
        LinkFault::LoseRequests => proxy::Fault::HalfOpen(Direction::Requests),
        LinkFault::LoseAnswers => proxy::Fault::HalfOpen(Direction::Answers),
        LinkFault::DropAnswers => proxy::Fault::DropAnswers,
        LinkFault::TruncateRequests { bytes } => proxy::Fault::TruncateRequests(bytes.into()),
        LinkFault::TruncateAnswers { bytes } => proxy::Fault::TruncateAnswers(bytes.into()),
        LinkFault::Slow { bytes_per_second } => proxy::Fault::Slow { bytes_per_second },
        LinkFault::Delay { milliseconds } => {
            proxy::Fault::Delay(Duration::from_millis(milliseconds.into()))
        }
        LinkFault::RefuseInserts { code } => proxy::Fault::AnswerInsertsWith(code),
        LinkFault::FailAfterInserts { code } => proxy::Fault::FailAfterInsert(code),
    }
}

/// Starts services again that have ended, until it is dropped.
#[derive(Debug)]
struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    fn start(services: Arc<Vec<Service>>) -> anyhow::Result<Self> {
        let http = probe_client()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                for service in services.iter() {
                    // What cannot be started now is tried again; a service that never starts fails the trial.
                    service.supervise(&http).ok();
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the supervisor has been printed already.
            thread.join().ok();
        }
    }
}

fn probe_client() -> anyhow::Result<reqwest::blocking::Client> {
    Ok(reqwest::blocking::Client::builder().timeout(PROBE_LIMIT).no_proxy().build()?)
}

/// Asks `condition` until it gives a value, for at most `limit`.
pub fn within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= deadline => {
                bail!("not within {} s: {what}: {reason}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
