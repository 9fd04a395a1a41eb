//! Topics of a cluster, changed with Kafka's own tools. A call takes a second or two: it starts Java.

use super::{Kafka, KafkaError, io_error};
use std::process::Command;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

/// A topic that is to be made.
#[derive(Clone, Debug)]
pub struct Topic<'a> {
    pub name: &'a str,
    pub partitions: u16,
    pub replicas: u16,
    /// Names and values of `kafka-topics --config`.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Kafka {
    /// Makes a topic; it is an error when it exists.
    pub fn create_topic(&self, topic: &Topic<'_>) -> Result<(), KafkaError> {
        let mut command = self.tool(TOPICS, &self.direct_bootstrap());
        command
            .args(["--create", "--topic", topic.name])
            .args(["--partitions", &topic.partitions.to_string()])
            .args(["--replication-factor", &topic.replicas.to_string()]);
        for (name, value) in topic.settings {
            command.args(["--config", &format!("{name}={value}")]);
        }
        run(TOPICS, command).map(drop)
    }

    /// Removes a topic with all its records; it is an error when it does not exist.
    ///
    /// The name may be free for a new topic only a moment later.
    pub fn delete_topic(&self, name: &str) -> Result<(), KafkaError> {
        let mut command = self.tool(TOPICS, &self.direct_bootstrap());
        command.args(["--delete", "--topic", name]);
        run(TOPICS, command).map(drop)
    }

    /// The names of the topics, without Kafka's own.
    pub fn topics(&self) -> Result<Vec<String>, KafkaError> {
        let mut command = self.tool(TOPICS, &self.direct_bootstrap());
        command.args(["--list", "--exclude-internal"]);
        Ok(run(TOPICS, command)?.lines().map(str::to_owned).collect())
    }

    /// How many records a topic has taken, per partition: the offset after the last one.
    pub fn end_offsets(&self, topic: &str) -> Result<Vec<u64>, KafkaError> {
        const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
        let mut command = self.tool(OFFSETS, &self.direct_bootstrap());
        command.args(["--topic", topic]);
        let text = run(OFFSETS, command)?;
        // Lines of `topic:partition:offset`, in the order of the partitions.
        let offset = |line: &str| line.rsplit(':').next().and_then(|offset| offset.parse().ok());
        let offsets: Option<Vec<_>> = text.lines().map(offset).collect();
        offsets.ok_or(KafkaError::Program { program: OFFSETS, output: text })
    }

    /// A program of Kafka by its Java class, connected to [`Self::bootstrap`] or
    /// [`Self::direct_bootstrap`].
    pub fn tool(&self, main: &str, bootstrap: &str) -> Command {
        let mut command = self.java.command(main);
        command.args(["--bootstrap-server", bootstrap]);
        command
    }
}

/// Runs a tool to its end; what it has written to its standard output.
fn run(program: &'static str, mut command: Command) -> Result<String, KafkaError> {
    let output = command.output().map_err(io_error("running a tool of Kafka"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(KafkaError::Program { program, output: String::from_utf8_lossy(&text).into_owned() })
}
