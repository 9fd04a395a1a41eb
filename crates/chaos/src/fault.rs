//! What can go wrong, and where. Pure; written as JSON into reports, and read back by `--schedule`.

use fault_injection::Point;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A process of the stack under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// Both services, on embedded engines.
    Standalone,
    IngestApi,
    /// A member of the consumer group, from zero.
    EventConsumer(u8),
    /// A broker of the cluster, from zero.
    Broker(u8),
    ClickHouse,
    /// Where organizations, keys and metrics are.
    Database,
}

/// A connection between two parts, which leads through a proxy of its own. Numbers count from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    ClientToApi,
    ApiToDatabase,
    ApiToBroker(u8),
    /// To all of them: the API is cut off from Kafka.
    ApiToBrokers,
    /// Of a consumer to a broker.
    ConsumerToBroker(u8, u8),
    /// To all of them: the consumer is cut off from its group, and not from ClickHouse.
    ConsumerToBrokers(u8),
    ConsumerToClickHouse(u8),
    /// From the other brokers to a broker, whose records they copy.
    BrokersToBroker(u8),
    /// From all brokers and controllers to the controller in a broker.
    BrokersToController(u8),
}

/// What a link does to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkFault {
    /// Open connections are closed and new ones refused.
    Cut,
    /// Open connections go on, new ones are refused.
    RefuseNew,
    /// Nothing passes and nothing is closed.
    BlackHole,
    /// What is sent towards the server vanishes; nothing is closed.
    LoseRequests,
    /// What is sent towards the client vanishes; nothing is closed.
    LoseAnswers,
    /// Requests pass; instead of the answer the connection is closed.
    DropAnswers,
    /// A connection is closed after so many more bytes towards the server.
    TruncateRequests { bytes: u32 },
    /// A connection is closed after so many more bytes towards the client.
    TruncateAnswers { bytes: u32 },
    /// In both directions.
    Slow { bytes_per_second: u32 },
    /// In both directions.
    Delay { milliseconds: u32 },
    /// ClickHouse refuses every INSERT with this code.
    RefuseInserts { code: u16 },
    /// ClickHouse does every INSERT and answers with this code.
    FailAfterInserts { code: u16 },
    /// ClickHouse refuses everything but INSERTs with this code.
    RefuseQueries { code: u16 },
}

/// A disk of limited size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// The data directory of the embedded log.
    Log,
    /// The log directory of a broker, from zero.
    Broker(u8),
    ClickHouse,
}

/// What happens at a point between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    Abort,
    Stall { milliseconds: u32 },
    Error,
}

/// A fault, which lasts until it is lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL; started again when lifted.
    Kill(Process),
    /// SIGSTOP; SIGCONT when lifted.
    Pause(Process),
    Link(Link, LinkFault),
    /// The next time the process comes to the point.
    Point(Process, #[serde(with = "point_name")] Point, Stop),
    FullDisk(Disk),
    /// The process's clock is off.
    ClockShift {
        process: Process,
        milliseconds: i64,
    },
    /// Records that are no events are written into the log.
    Poison {
        records: u8,
    },
}

impl Process {
    /// Whether it is a program of this repository that can be told to commit faults.
    pub const fn is_service(self) -> bool {
        matches!(self, Self::Standalone | Self::IngestApi | Self::EventConsumer(_))
    }
}

impl Link {
    /// The way of a service to Kafka is one, whether to one broker or to all.
    fn turn(self) -> String {
        match self {
            Self::ApiToBroker(_) => Self::ApiToBrokers.turn(),
            Self::ConsumerToBroker(consumer, _) => Self::ConsumerToBrokers(consumer).turn(),
            link => format!("{link:?}"),
        }
    }
}

impl Fault {
    /// What two faults must not break at the same time: an engine and its disk are one.
    pub fn turn(&self) -> String {
        match self {
            Self::Kill(process) | Self::Pause(process) => process.to_string(),
            Self::FullDisk(Disk::Log) => Process::Standalone.to_string(),
            Self::FullDisk(Disk::Broker(number)) => Process::Broker(*number).to_string(),
            Self::FullDisk(Disk::ClickHouse) => Process::ClickHouse.to_string(),
            Self::Link(link, _) => link.turn(),
            Self::Point(process, point, _) => format!("{process} {}", point.name()),
            Self::ClockShift { process, .. } => format!("clock of {process}"),
            Self::Poison { .. } => "the log".to_owned(),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone => f.write_str("standalone"),
            Self::IngestApi => f.write_str("ingest-api"),
            Self::EventConsumer(number) => write!(f, "event-consumer-{}", number + 1),
            Self::Broker(number) => write!(f, "broker-{}", number + 1),
            Self::ClickHouse => f.write_str("clickhouse"),
            Self::Database => f.write_str("database"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(process) => write!(f, "kill {process}"),
            Self::Pause(process) => write!(f, "pause {process}"),
            Self::Link(link, fault) => write!(f, "{link:?}: {fault:?}"),
            Self::Point(process, point, stop) => {
                write!(f, "{process} at {}: {stop:?}", point.name())
            }
            Self::FullDisk(disk) => write!(f, "full disk: {disk:?}"),
            Self::Poison { records } => write!(f, "{records} poison records"),
            Self::ClockShift { process, milliseconds } => {
                write!(f, "clock of {process} off by {milliseconds} ms")
            }
        }
    }
}

/// A point as its name.
mod point_name {
    use fault_injection::Point;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(
        point: &Point,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(point.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Point, D::Error> {
        let name = String::deserialize(deserializer)?;
        Point::from_name(&name).ok_or_else(|| Error::custom(format!("no point is called {name}")))
    }
}
