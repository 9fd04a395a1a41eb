//! Apache Kafka (KRaft, no ZooKeeper) from its Maven packages, on data of its own: for tests, and
//! for machines without Docker.
//!
//! All calls block.

mod jars;

pub use jars::ensure_jars;

use crate::free_port;
use crate::process::ManagedProcess;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The same for every cluster started here: 16 bytes in base64, as Kafka wants it.
const CLUSTER_ID: &str = "VGFsbHltYXJrLUxvY2FsIQ";
/// Longest time for a start, which includes the recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a broker may take to write out and leave when it is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much of a log is shown when a broker did not start, in bytes.
const TAIL_BYTES: u64 = 4096;
/// What a broker logs once it answers clients.
const STARTED: &str = "Kafka Server started";

/// What cluster to start, and where it keeps what it needs.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// 1 or 3; each is a broker and a controller.
    pub brokers: u16,
    /// Holds data, settings and logs of all brokers. One that was used before is used again.
    pub data_dir: PathBuf,
    /// Largest heap of each broker, in MiB.
    pub java_heap_mb: u32,
    /// The port of the first broker; a free one when absent.
    pub port: Option<u16>,
}

impl KafkaOptions {
    /// One broker with a heap of 512 MiB on a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { brokers: 1, data_dir: data_dir.into(), java_heap_mb: 512, port: None }
    }
}

/// Why there is no broker, or why it did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error(
        "`{program}` was not found; install what Apache Kafka needs with \
         `apt-get install maven openjdk-17-jre-headless`"
    )]
    NotInstalled { program: &'static str },
    #[error("a cluster has 1 or 3 brokers, not {0}")]
    Brokers(u16),
    #[error("{operation} failed")]
    Io { operation: &'static str, source: io::Error },
    #[error("{program} failed:\n{output}")]
    Program { program: &'static str, output: String },
    #[error("broker {broker} did not start; the end of {}:\n{tail}", log.display())]
    NotStarted { broker: usize, log: PathBuf, tail: String },
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> KafkaError {
    move |source| KafkaError::Io { operation, source }
}

/// A running cluster, which listens on loopback only. Dropping it kills it.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
}

#[derive(Debug)]
struct Broker {
    index: usize,
    jars: PathBuf,
    directory: PathBuf,
    port: u16,
    java_heap_mb: u32,
    process: Option<ManagedProcess>,
}

impl Kafka {
    /// Starts the brokers and returns once all of them answer clients.
    pub fn start(options: KafkaOptions) -> Result<Self, KafkaError> {
        let KafkaOptions { brokers: count, data_dir, java_heap_mb, port } = options;
        if count != 1 && count != 3 {
            return Err(KafkaError::Brokers(count));
        }
        let jars = ensure_jars()?;
        fs::create_dir_all(&data_dir).map_err(io_error("making the data directory"))?;
        let data_dir = data_dir.canonicalize().map_err(io_error("finding the data directory"))?;
        let ports: Vec<Ports> = (0..count)
            .map(|index| Ports {
                clients: port.filter(|_| index == 0).unwrap_or_else(free_port),
                controller: free_port(),
            })
            .collect();
        let mut brokers = Vec::with_capacity(ports.len());
        for (index, own) in ports.iter().enumerate() {
            let directory = data_dir.join(format!("broker-{}", index + 1));
            let broker = Broker {
                index,
                jars: jars.clone(),
                directory,
                port: own.clients,
                java_heap_mb,
                process: None,
            };
            broker.prepare(&ports)?;
            brokers.push(broker);
        }
        let mut kafka = Self { brokers };
        // All first, then waiting: a controller alone has no quorum.
        let logs = kafka.brokers.iter_mut().map(Broker::launch).collect::<Result<Vec<_>, _>>()?;
        for (broker, seen) in kafka.brokers.iter_mut().zip(logs) {
            broker.await_start(seen)?;
        }
        Ok(kafka)
    }

    /// `host:port` of every broker, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> =
            self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        addresses.join(",")
    }

    /// The process id of a broker, counted from zero; `None` when it is not running.
    pub fn pid(&self, broker: usize) -> Option<u32> {
        self.brokers[broker].process.as_ref().map(ManagedProcess::pid)
    }

    /// Whether a broker, counted from zero, has been started and has not exited.
    pub fn is_running(&mut self, broker: usize) -> bool {
        self.brokers[broker].process.as_mut().is_some_and(ManagedProcess::is_running)
    }

    /// SIGKILL.
    pub fn kill(&mut self, broker: usize) -> Result<(), KafkaError> {
        match self.brokers[broker].process.take() {
            Some(mut process) => process.kill().map_err(io_error("killing a broker")),
            None => Ok(()),
        }
    }

    /// SIGSTOP: the broker stands still until [`Self::resume`].
    pub fn pause(&self, broker: usize) -> Result<(), KafkaError> {
        let process = self.brokers[broker].process.as_ref();
        process.map_or(Ok(()), ManagedProcess::pause).map_err(io_error("pausing a broker"))
    }

    /// SIGCONT.
    pub fn resume(&self, broker: usize) -> Result<(), KafkaError> {
        let process = self.brokers[broker].process.as_ref();
        process.map_or(Ok(()), ManagedProcess::resume).map_err(io_error("resuming a broker"))
    }

    /// Starts a broker again on its port and data; kills it first when it still runs.
    pub fn restart(&mut self, broker: usize) -> Result<(), KafkaError> {
        self.kill(broker)?;
        let broker = &mut self.brokers[broker];
        let seen = broker.launch()?;
        broker.await_start(seen)
    }

    /// Stops all brokers in order, which leaves nothing to recover.
    pub fn stop(&mut self) -> Result<(), KafkaError> {
        for broker in &mut self.brokers {
            if let Some(mut process) = broker.process.take() {
                process.stop(STOP_LIMIT).map_err(io_error("stopping a broker"))?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    clients: u16,
    controller: u16,
}

impl Broker {
    /// Writes the settings, and formats the data directory when it is new.
    fn prepare(&self, ports: &[Ports]) -> Result<(), KafkaError> {
        fs::create_dir_all(&self.directory).map_err(io_error("making a broker's directory"))?;
        fs::write(self.settings_file(), settings(self.index, ports, &self.data()))
            .map_err(io_error("writing a broker's settings"))?;
        if self.data().join("meta.properties").is_file() {
            return Ok(());
        }
        let output = self
            .java("kafka.tools.StorageTool")
            .args(["format", "--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.settings_file())
            .output()
            .map_err(io_error("formatting a broker's storage"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&text).into_owned();
        Err(KafkaError::Program { program: "kafka.tools.StorageTool", output })
    }

    /// Starts the process; returns how much of its log is from earlier runs.
    fn launch(&mut self) -> Result<u64, KafkaError> {
        let seen = fs::metadata(self.log_file()).map_or(0, |log| log.len());
        let mut command = self.java("kafka.Kafka");
        command.arg(self.settings_file());
        let name = format!("kafka-{}", self.index + 1);
        let process = ManagedProcess::spawn(command, &name, &self.log_file())
            .map_err(io_error("starting a broker"))?;
        self.process = Some(process);
        Ok(seen)
    }

    fn await_start(&mut self, seen: u64) -> Result<(), KafkaError> {
        let deadline = Instant::now() + START_LIMIT;
        while !read_from(&self.log_file(), seen).contains(STARTED) {
            let runs = self.process.as_mut().is_some_and(ManagedProcess::is_running);
            if !runs || Instant::now() >= deadline {
                let log = self.log_file();
                let length = fs::metadata(&log).map_or(0, |log| log.len());
                let tail = read_from(&log, length.saturating_sub(TAIL_BYTES).max(seen));
                return Err(KafkaError::NotStarted { broker: self.index, log, tail });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn java(&self, main: &str) -> Command {
        let mut command = Command::new("java");
        command
            .arg(format!("-Xmx{}m", self.java_heap_mb))
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS")
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(main);
        command
    }

    fn settings_file(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

fn settings(index: usize, ports: &[Ports], data: &Path) -> String {
    let own = ports[index];
    let voters: Vec<_> = ports
        .iter()
        .zip(1..)
        .map(|(ports, id): (_, usize)| format!("{id}@127.0.0.1:{}", ports.controller))
        .collect();
    let (replicas, in_sync) = if ports.len() >= 3 { (3, 2) } else { (1, 1) };
    let (id, clients, controller) = (index + 1, own.clients, own.controller);
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{clients}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
# Topics are made on purpose, with the settings they need.
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
# A group of one need not wait for others, and tests need not wait for long sessions to end.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# The default takes a quarter of a small heap.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
",
        voters = voters.join(","),
        data = data.display(),
    )
}

/// The log from a byte on; what cannot be read is not there yet.
fn read_from(log: &Path, start: u64) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(count: u16) -> Vec<Ports> {
        (1..=count).map(|n| Ports { clients: 9000 + n, controller: 9100 + n }).collect()
    }

    #[test]
    fn one_broker_asks_for_one_replica() {
        let settings = settings(0, &ports(1), Path::new("/data"));
        assert!(settings.contains("controller.quorum.voters=1@127.0.0.1:9101\n"), "{settings}");
        assert!(settings.contains("offsets.topic.replication.factor=1\n"), "{settings}");
    }

    #[test]
    fn three_brokers_keep_three_replicas_and_need_two() {
        let settings = settings(2, &ports(3), Path::new("/data"));
        assert!(settings.contains("node.id=3\n"), "{settings}");
        let voters = "voters=1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103\n";
        assert!(settings.contains(voters), "{settings}");
        assert!(settings.contains("transaction.state.log.min.isr=2\n"), "{settings}");
    }

    #[test]
    fn other_counts_are_refused() {
        let options = KafkaOptions { brokers: 2, ..KafkaOptions::new("unused") };
        assert!(matches!(Kafka::start(options), Err(KafkaError::Brokers(2))));
    }
}
