//! One broker: its files and its process.

use super::settings::settings;
use super::{BrokerOptions, KafkaError, Listener, io_error};
use crate::process::ManagedProcess;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The same for every cluster started here: 16 bytes in base64, as Kafka wants it.
const CLUSTER_ID: &str = "VGFsbHltYXJrLUxvY2FsIQ";
/// Longest time for a start, which includes the recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a broker may take to write out and leave when it is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much of a log is shown when a broker did not start, in bytes.
const SHOWN_BYTES: usize = 4096;
/// What a broker logs once it answers clients.
const STARTED: &str = "Kafka Server started";

#[derive(Debug)]
pub(super) struct Broker {
    index: usize,
    java: Java,
    directory: PathBuf,
    data: PathBuf,
    /// The process, and how much of its log is from earlier runs, in bytes.
    process: Mutex<Option<(ManagedProcess, u64)>>,
}

impl Broker {
    /// Writes the settings of the broker at `index`. Its data directory is formatted by
    /// [`Self::begin_format`].
    pub(super) fn prepare(
        index: usize,
        java: &Java,
        data_dir: &Path,
        brokers: &[BrokerOptions],
        direct: Listener,
    ) -> Result<Self, KafkaError> {
        let directory = data_dir.join(format!("broker-{}", index + 1));
        let data = brokers[index].log_dir.clone().unwrap_or_else(|| directory.join("data"));
        let broker = Self { index, java: java.clone(), directory, data, process: Mutex::new(None) };
        fs::create_dir_all(&broker.directory).map_err(io_error("making a broker's directory"))?;
        let text = settings(index, brokers, direct, &broker.data);
        fs::write(broker.settings_file(), text).map_err(io_error("writing a broker's settings"))?;
        Ok(broker)
    }

    /// Starts to format the data directory when it is new; [`await_format`] waits for the end.
    pub(super) fn begin_format(&self) -> Result<Option<Child>, KafkaError> {
        if self.data.join("meta.properties").is_file() {
            return Ok(None);
        }
        let child = self
            .java
            .command("kafka.tools.StorageTool")
            .args(["format", "--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.settings_file())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.map(Some).map_err(io_error("formatting a broker's storage"))
    }

    /// Starts the process, after killing the one that runs.
    pub(super) fn launch(&self) -> Result<(), KafkaError> {
        let mut process = self.process();
        if let Some((mut old, _)) = process.take() {
            old.kill().map_err(io_error("killing a broker"))?;
        }
        let seen = fs::metadata(self.log_file()).map_or(0, |log| log.len());
        let mut command = self.java.command("kafka.Kafka");
        command.arg(self.settings_file());
        let name = format!("kafka-{}", self.index + 1);
        let started = ManagedProcess::spawn(command, &name, &self.log_file())
            .map_err(io_error("starting a broker"))?;
        *process = Some((started, seen));
        Ok(())
    }

    /// Waits until the broker that was launched answers clients.
    pub(super) fn await_started(&self) -> Result<(), KafkaError> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.has_started() {
            if !self.is_running() || Instant::now() >= deadline {
                let seen = self.process().as_ref().map_or(0, |(_, seen)| *seen);
                let log = self.log_file();
                let reason = why(&read_from(&log, seen)).to_owned();
                return Err(KafkaError::NotStarted { broker: self.index, log, reason });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    pub(super) fn has_started(&self) -> bool {
        let seen = self.process().as_ref().map(|(_, seen)| *seen);
        seen.is_some_and(|seen| read_from(&self.log_file(), seen).contains(STARTED))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(|(process, _)| process.pid())
    }

    pub(super) fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(|(process, _)| process.is_running())
    }

    pub(super) fn kill(&self) -> Result<(), KafkaError> {
        match self.process().take() {
            Some((mut process, _)) => process.kill().map_err(io_error("killing a broker")),
            None => Ok(()),
        }
    }

    pub(super) fn pause(&self) -> Result<(), KafkaError> {
        match self.process().as_ref() {
            Some((process, _)) => process.pause().map_err(io_error("pausing a broker")),
            None => Ok(()),
        }
    }

    pub(super) fn resume(&self) -> Result<(), KafkaError> {
        match self.process().as_ref() {
            Some((process, _)) => process.resume().map_err(io_error("resuming a broker")),
            None => Ok(()),
        }
    }

    pub(super) fn stop(&self) -> Result<(), KafkaError> {
        // Taken out first: the others can be asked about while this one takes its time.
        let process = self.process().take();
        let Some((mut process, _)) = process else { return Ok(()) };
        process.stop(STOP_LIMIT).map(drop).map_err(io_error("stopping a broker"))
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn settings_file(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn process(&self) -> MutexGuard<'_, Option<(ManagedProcess, u64)>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what [`Broker::begin_format`] began.
pub(super) fn await_format(child: Child) -> Result<(), KafkaError> {
    let output = child.wait_with_output().map_err(io_error("waiting for a broker's storage"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&text).into_owned();
    Err(KafkaError::Program { program: "kafka.tools.StorageTool", output })
}

/// The part of a log that says why a broker did not start: from its first error on, or else its end.
fn why(log: &str) -> &str {
    let error =
        log.find(" ERROR ").map(|error| log[..error].rfind('\n').map_or(0, |line| line + 1));
    let start = error.unwrap_or(log.len().saturating_sub(SHOWN_BYTES));
    let start = log.ceil_char_boundary(start);
    &log[start..log.floor_char_boundary(start.saturating_add(SHOWN_BYTES).min(log.len()))]
}

/// How the programs of Kafka are started.
#[derive(Clone, Debug)]
pub(super) struct Java {
    pub(super) jars: PathBuf,
    pub(super) heap_mb: u32,
    /// Compiles little and collects garbage on one thread: a cluster on two cores starts in three
    /// quarters of the time.
    pub(super) quick: bool,
}

impl Java {
    pub(super) fn command(&self, main: &str) -> Command {
        let mut command = Command::new("java");
        command.arg(format!("-Xmx{}m", self.heap_mb));
        if self.quick {
            command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        }
        command
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS")
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(main);
        command
    }
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

    #[test]
    fn the_first_error_of_a_log_is_shown_and_without_one_its_end() {
        let log = "12:00 INFO starting\n12:01 ERROR the port is taken\n12:02 ERROR exiting\n";
        assert_eq!(why(log), "12:01 ERROR the port is taken\n12:02 ERROR exiting\n");
        assert_eq!(why("12:00 INFO starting\n"), "12:00 INFO starting\n");
        let long = format!("first{}", "ü".repeat(SHOWN_BYTES));
        assert!(why(&long).len() <= SHOWN_BYTES && why(&long).starts_with('ü'));
    }
}
