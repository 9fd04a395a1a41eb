//! The boundaries between the steps of the pipeline, and what can be made to happen there.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use std::{fs, io};

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A boundary between two steps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All of them, in the order in which an event meets them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// ingest-api knows who sends; nothing was read of the body.
    RequestAuthenticated = "request-authenticated",
    /// ingest-api has the whole body in memory.
    BodyRead = "body-read",
    /// ingest-api has decided about every event; nothing was published.
    EventsValidated = "events-validated",
    /// The log's producer has taken the records; none is durable.
    RecordsEnqueued = "records-enqueued",
    /// The embedded log has written the records; the transaction is open.
    RecordsWritten = "records-written",
    /// The embedded log's transaction is committed; nobody was told.
    RecordsDurable = "records-durable",
    /// ingest-api knows that the records are durable; nothing was answered.
    EventsPublished = "events-published",
    /// event-consumer has been given partitions; no index was read.
    PartitionsAssigned = "partitions-assigned",
    /// event-consumer has read a partition's index from the store.
    IndexRebuilt = "index-rebuilt",
    /// The log's consumer has fetched records.
    RecordsPolled = "records-polled",
    /// event-consumer has decided about the fetched records.
    RecordsDecided = "records-decided",
    /// event-consumer has a batch that takes no more; nothing was sent.
    BatchSealed = "batch-sealed",
    /// The events of a batch are in ClickHouse; no conflict of it is.
    EventsInserted = "events-inserted",
    /// The conflicts of a batch are in ClickHouse; no dead letter of it is.
    ConflictsInserted = "conflicts-inserted",
    /// The dead letters of a batch are in ClickHouse; its audit is not.
    DeadLettersInserted = "dead-letters-inserted",
    /// All of a batch is in ClickHouse; nobody was told.
    BatchInserted = "batch-inserted",
    /// event-consumer knows that a batch is stored; its offsets are not committed.
    CommitDue = "commit-due",
    /// The log has the offsets; event-consumer has not noted it.
    OffsetsCommitted = "offsets-committed",
}

impl Point {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }

    /// Whether a process with this fault directory has taken the action that was armed.
    pub fn has_fired(self, directory: &Path) -> bool {
        directory.join(self.name()).with_extension("fired").exists()
    }
}

/// What happens at a point, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends as if killed.
    Abort,
    /// The step takes this much longer.
    Stall(Duration),
    /// The step fails.
    Error,
}

impl Action {
    /// Tells the processes with this fault directory to take the action when one of them reaches `point`.
    pub fn arm(self, directory: &Path, point: Point) -> io::Result<()> {
        let text = match self {
            Self::Abort => "abort".to_owned(),
            Self::Stall(limit) => format!("stall {}", limit.as_millis()),
            Self::Error => "error".to_owned(),
        };
        let armed = directory.join(point.name());
        fs::remove_file(armed.with_extension("fired")).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        // A process must never read half of it.
        let draft = armed.with_extension("draft");
        fs::write(&draft, text)?;
        fs::rename(draft, armed)
    }
}

impl FromStr for Action {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(' ') {
            None if text == "abort" => Ok(Self::Abort),
            None if text == "error" => Ok(Self::Error),
            Some(("stall", milliseconds)) => {
                milliseconds.parse().map(Duration::from_millis).map(Self::Stall).map_err(drop)
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for point in Point::ALL {
            assert_eq!(Point::from_name(point.name()), Some(*point));
        }
    }
}
