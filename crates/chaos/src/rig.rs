//! A whole Tallymark with real engines, each part of which can be broken while it works.
//!
//! Every part is a process of its own and every connection between parts leads through a proxy.
//! Services that end are started again, as a supervisor in production would.

mod breaking;
mod embedded;
mod servers;
mod service;
mod tenant;

pub use breaking::Applied;
pub use service::{Service, Starts};
pub use tenant::Tenant;

use crate::fault::{Disk, Link, Process};
use crate::poison::Poisoner;
use crate::schedule::Targets;
use anyhow::{Context as _, bail};
use event_log::embedded::EmbeddedReader;
use event_log::kafka::{KafkaConfig, KafkaReader};
use event_log::{EventLogReader, LogError};
use fault_injection::Sabotage;
use local_engines::clickhouse::EmbeddedClickHouse;
use local_engines::kafka::Kafka;
use local_engines::postgres::Postgres;
use local_engines::small_disk::SmallDisk;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::proxy::Proxy;
use testkit::sql::Reader;
use testkit::stack::Engines;

/// Longest time for the stack to be ready when no fault lasts.
pub const READY_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A probe that takes longer is answered "not ready".
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How large a disk is that can be filled, in bytes.
const SMALL_DISK_BYTES: u64 = 256 * 1024 * 1024;
/// The consumer group of every stack.
const GROUP: &str = "event-consumer";

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
    /// Where the embedded log is, if it is one.
    embedded_log: Option<PathBuf>,
    tenants: Vec<Tenant>,
    disks: BTreeMap<Disk, SmallDisk>,
    directory: tempfile::TempDir,
}

impl Setup {
    /// Everything that is broken at random.
    pub fn targets(&self) -> Targets {
        match self.engines {
            Engines::Embedded => Targets {
                processes: vec![Process::Standalone, Process::ClickHouse],
                links: vec![vec![Link::ClientToApi], vec![Link::ConsumerToClickHouse(0)]],
                disks: vec![Disk::Log, Disk::ClickHouse],
                open_log: false,
            },
            Engines::Servers => {
                let brokers = 0..self.brokers;
                let services = (0..self.consumers).map(Process::EventConsumer);
                let engines = [Process::IngestApi, Process::ClickHouse, Process::Database];
                Targets {
                    processes: engines
                        .into_iter()
                        .chain(services)
                        .chain(brokers.clone().map(Process::Broker))
                        .collect(),
                    links: self.links_of_servers(),
                    disks: brokers.map(Disk::Broker).chain([Disk::ClickHouse]).collect(),
                    open_log: true,
                }
            }
        }
    }

    fn links_of_servers(&self) -> Vec<Vec<Link>> {
        let consumers = || 0..self.consumers;
        let brokers = || 0..self.brokers;
        let to_brokers = |consumer| brokers().map(move |broker| (consumer, broker));
        vec![
            vec![Link::ClientToApi],
            vec![Link::ApiToDatabase],
            brokers().map(Link::ApiToBroker).collect(),
            vec![Link::ApiToBrokers],
            consumers()
                .flat_map(to_brokers)
                .map(|(consumer, broker)| Link::ConsumerToBroker(consumer, broker))
                .collect(),
            consumers().map(Link::ConsumerToBrokers).collect(),
            consumers().map(Link::ConsumerToClickHouse).collect(),
            brokers().map(Link::BrokersToBroker).collect(),
            brokers().map(Link::BrokersToController).collect(),
        ]
    }
}

impl Rig {
    /// Starts the stack and returns once it accepts events.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        match setup.engines {
            Engines::Embedded => embedded::start(setup),
            Engines::Servers => servers::start(setup),
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

    /// The proxies of a link; one, unless it leads to all brokers.
    pub fn link(&self, link: Link) -> anyhow::Result<Vec<&Proxy>> {
        let is_part = |part: &Link| match (link, part) {
            (Link::ApiToBrokers, Link::ApiToBroker(_)) => true,
            (Link::ConsumerToBrokers(consumer), Link::ConsumerToBroker(of, _)) => consumer == *of,
            (link, part) => link == *part,
        };
        let parts: Vec<_> =
            self.links.iter().filter(|(part, _)| is_part(part)).map(|(_, proxy)| proxy).collect();
        if parts.is_empty() {
            bail!("this stack has no {link:?}");
        }
        Ok(parts)
    }

    /// How often faults of a link have done something.
    pub fn hits(&self, link: Link) -> u64 {
        self.link(link).unwrap_or_default().iter().map(|proxy| proxy.counts().hits).sum()
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
        let proxy = self.links.get(&Link::ClientToApi).context("every stack has an API")?;
        Ok(format!("http://{}", proxy.address()))
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

    /// Waits until every engine runs and every service says that it is ready. Engines that have ended
    /// are started again, as services are.
    pub fn await_ready(&self) -> anyhow::Result<()> {
        let http = probe_client()?;
        within(READY_LIMIT, "every part works", || {
            self.start_ended_engines().map_err(|error| format!("{error:#}"))?;
            match self.services.iter().find(|service| !service.is_ready(&http)) {
                None => Ok(()),
                Some(service) => Err(format!("{} is not ready", service.process())),
            }
        })
    }

    /// Waits until events are billed that were not before.
    pub fn await_progress(&self) -> anyhow::Result<()> {
        let reader = self.reader();
        let count = || reader.number("SELECT count() FROM billable_events");
        let before = within(READY_LIMIT, "the store answers", count)?;
        within(READY_LIMIT, "events are billed again", || match count()? {
            now if now > before => Ok(()),
            now => Err(format!("still {now}")),
        })
    }

    /// Waits until the consumer group has committed all that is in the log.
    pub fn await_committed(&self) -> anyhow::Result<()> {
        let mut reader = self.log_reader()?;
        within(READY_LIMIT, "everything is committed", || {
            let error = |error: LogError| format!("{:#}", anyhow::Error::from(error));
            for partition in 0..reader.partition_count() {
                let high = reader.watermarks(partition).map_err(error)?.high;
                let committed = reader.committed(partition).map_err(error)?.unwrap_or(0);
                if committed != high {
                    return Err(format!("partition {partition}: {committed} of {high}"));
                }
            }
            Ok(())
        })
    }

    fn log_reader(&self) -> anyhow::Result<Box<dyn EventLogReader>> {
        Ok(match (&self.embedded_log, &self.kafka) {
            (Some(path), _) => Box::new(EmbeddedReader::open(path, GROUP)?),
            (None, Some(kafka)) => {
                Box::new(KafkaReader::connect(&KafkaConfig::new(kafka.direct_bootstrap()))?)
            }
            (None, None) => bail!("this stack has no log"),
        })
    }

    /// How often services were started again in all.
    pub fn restarts(&self) -> u32 {
        self.services.iter().map(|service| service.starts().restarts).sum()
    }

    /// Ends every process, and keeps data and logs when the rig goes; says where they are.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        drop(self.supervisor.take());
        let mut broken = Vec::new();
        broken.extend(self.services.iter().filter_map(|service| service.kill().err()));
        broken.extend(self.kill_engines().err());
        for (disk, small) in &self.disks {
            // What lies on a small disk goes with it.
            let copy = self.directory.path().join(format!("{disk:?}"));
            broken.extend(copy_directory(small.path(), &copy).err());
        }
        for error in broken {
            writeln!(std::io::stderr().lock(), "not everything could be kept: {error:#}").ok();
        }
        self.directory.path()
    }
}

fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}", String::from_utf8_lossy(&output.stderr))
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
