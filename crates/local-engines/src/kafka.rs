//! Apache Kafka (KRaft, no ZooKeeper) from its Maven packages, on data of its own: for tests, and
//! for machines without Docker.
//!
//! All calls block. They may come from several threads; calls that start or end one broker must not
//! overlap for that broker.

mod broker;
mod jars;
mod settings;
mod tools;

pub use jars::ensure_jars;
pub use tools::Topic;

use crate::free_port;
use broker::{Broker, Java};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What cluster to start, and where it keeps what it needs.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// 1 or 3; each is a broker and a controller.
    pub brokers: Vec<BrokerOptions>,
    /// Holds data, settings and logs of all brokers. One that was used before is used again.
    pub data_dir: PathBuf,
    /// Largest heap of each broker, in MiB.
    pub java_heap_mb: u32,
    /// Start sooner, and work slower under load: Java compiles less.
    pub quick_start: bool,
}

/// Where one broker is reached and keeps its records. All ports are known before the broker starts, for
/// proxies in front of them.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// For clients: one or more, so that each client can come through a proxy of its own.
    pub clients: Vec<Listener>,
    /// For the other brokers.
    pub replicas: Listener,
    /// For the controllers, and for what brokers tell the active one.
    pub controller: Listener,
    /// The log directory, which may be on a disk of its own; in the data directory when absent.
    pub log_dir: Option<PathBuf>,
}

/// A loopback port, and where those who come to it are told to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    /// Such as a proxy in front of `port`; the port itself when absent.
    pub advertised: Option<SocketAddr>,
}

impl Listener {
    /// On a free port, without a proxy.
    pub fn free() -> Self {
        Self { port: free_port(), advertised: None }
    }

    /// The port itself.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn told(&self) -> SocketAddr {
        self.advertised.unwrap_or_else(|| self.address())
    }
}

impl BrokerOptions {
    fn new() -> Self {
        Self {
            clients: vec![Listener::free()],
            replicas: Listener::free(),
            controller: Listener::free(),
            log_dir: None,
        }
    }
}

impl KafkaOptions {
    /// One broker with a heap of 512 MiB on a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let brokers = vec![BrokerOptions::new()];
        Self { brokers, data_dir: data_dir.into(), java_heap_mb: 512, quick_start: false }
    }

    /// Three brokers with heaps of 384 MiB on free ports, which start and fail over quickly.
    pub fn cluster(data_dir: impl Into<PathBuf>) -> Self {
        let brokers = (0..3).map(|_| BrokerOptions::new()).collect();
        Self { brokers, data_dir: data_dir.into(), java_heap_mb: 384, quick_start: true }
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
    Brokers(usize),
    #[error("{operation} failed")]
    Io { operation: &'static str, source: io::Error },
    #[error("{program} failed:\n{output}")]
    Program { program: &'static str, output: String },
    #[error("broker {broker} did not start; from {}:\n{reason}", log.display())]
    NotStarted { broker: usize, log: PathBuf, reason: String },
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> KafkaError {
    move |source| KafkaError::Io { operation, source }
}

/// A running cluster, which listens on loopback only. Dropping it kills it.
#[derive(Debug)]
pub struct Kafka {
    java: Java,
    brokers: Vec<Broker>,
    options: Vec<BrokerOptions>,
    /// Where tests' own tools reach each broker.
    direct: Vec<Listener>,
}

impl Kafka {
    /// Starts the brokers and returns once all of them answer clients.
    pub fn start(options: KafkaOptions) -> Result<Self, KafkaError> {
        let KafkaOptions { brokers: options, data_dir, java_heap_mb, quick_start } = options;
        if options.len() != 1 && options.len() != 3 {
            return Err(KafkaError::Brokers(options.len()));
        }
        let java = Java { jars: ensure_jars()?, heap_mb: java_heap_mb, quick: quick_start };
        fs::create_dir_all(&data_dir).map_err(io_error("making the data directory"))?;
        let data_dir = data_dir.canonicalize().map_err(io_error("finding the data directory"))?;
        let direct: Vec<_> = options.iter().map(|_| Listener::free()).collect();
        let brokers = (0..options.len())
            .map(|index| Broker::prepare(index, &java, &data_dir, &options, direct[index]))
            .collect::<Result<Vec<_>, _>>()?;
        // Each step is begun on all brokers before it is waited for. Java takes its time to start,
        // and a controller alone has no quorum.
        let formats = brokers.iter().map(Broker::begin_format).collect::<Result<Vec<_>, _>>()?;
        formats.into_iter().flatten().try_for_each(broker::await_format)?;
        brokers.iter().try_for_each(Broker::launch)?;
        brokers.iter().try_for_each(Broker::await_started)?;
        Ok(Self { java, brokers, options, direct })
    }

    /// `host:port` of every broker as clients are told, separated by commas.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_of(0)
    }

    /// The same for the client that has the listener at `client` of each broker's to itself.
    ///
    /// # Panics
    /// When a broker has fewer listeners.
    pub fn bootstrap_of(&self, client: usize) -> String {
        join(self.options.iter().map(|broker| broker.clients[client]))
    }

    /// The same for those who are to reach the brokers past any proxy, such as a test's own tools.
    pub fn direct_bootstrap(&self) -> String {
        join(self.direct.iter().copied())
    }

    /// How many brokers there are, running or not.
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// The process id of a broker, counted from zero; `None` when it was killed or stopped.
    pub fn pid(&self, broker: usize) -> Option<u32> {
        self.brokers[broker].pid()
    }

    /// Whether a broker, counted from zero, has been started and has not exited.
    pub fn is_running(&self, broker: usize) -> bool {
        self.brokers[broker].is_running()
    }

    /// SIGKILL, also when it is paused.
    pub fn kill(&self, broker: usize) -> Result<(), KafkaError> {
        self.brokers[broker].kill()
    }

    /// SIGSTOP: the broker stands still until [`Self::resume`]. Nothing when it is not running.
    pub fn pause(&self, broker: usize) -> Result<(), KafkaError> {
        self.brokers[broker].pause()
    }

    /// SIGCONT. Nothing when it is not running.
    pub fn resume(&self, broker: usize) -> Result<(), KafkaError> {
        self.brokers[broker].resume()
    }

    /// Starts a broker again on its ports and data; kills it first when it still runs.
    ///
    /// Waits until it answers clients, which it cannot while the controllers have no majority.
    pub fn restart(&self, broker: usize) -> Result<(), KafkaError> {
        self.launch(broker)?;
        self.brokers[broker].await_started()
    }

    /// The first half of [`Self::restart`]: starts the process and does not wait.
    pub fn launch(&self, broker: usize) -> Result<(), KafkaError> {
        self.brokers[broker].launch()
    }

    /// Whether a broker has answered clients since its last start.
    pub fn has_started(&self, broker: usize) -> bool {
        self.brokers[broker].has_started()
    }

    /// What a broker has written, over all its starts.
    pub fn log_file(&self, broker: usize) -> PathBuf {
        self.brokers[broker].log_file()
    }

    /// Stops all brokers in order, which leaves nothing to recover.
    pub fn stop(&self) -> Result<(), KafkaError> {
        // At once: the last ones could not hand over to a majority that has gone.
        std::thread::scope(|scope| {
            let stops: Vec<_> =
                self.brokers.iter().map(|broker| scope.spawn(|| broker.stop())).collect();
            let stopped = stops.into_iter().map(|stop| stop.join().expect("a stop does not panic"));
            stopped.collect()
        })
    }
}

fn join(listeners: impl Iterator<Item = Listener>) -> String {
    listeners.map(|listener| listener.told().to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_counts_are_refused() {
        let mut options = KafkaOptions::cluster("unused");
        options.brokers.pop();
        assert!(matches!(Kafka::start(options), Err(KafkaError::Brokers(2))));
    }
}
