//! Reads ranges of the topic without joining the consumer group.

use super::{KafkaConfig, LogContext, REQUEST_TIMEOUT, classify};
use crate::reader::{EventLogReader, Scanned};
use crate::{
    FetchedRecords, LogError, Offset, POLL_BYTES_MAX, POLL_RECORDS_MAX, PartitionId, Watermarks,
};
use chrono::{DateTime, Utc};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use std::fmt;
use std::time::{Duration, Instant};

const SETTINGS: [(&str, &str); 9] = [
    // It reads for itself: no offset of the group may move.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that is not in the log is an error for people, never a silent jump.
    ("auto.offset.reset", "error"),
    // As the consumer reads: other records were never there for it.
    ("isolation.level", "read_committed"),
    // A damaged record must not become a wrong one.
    ("check.crcs", "true"),
    // The end of a range may be the marker of a transaction, which is never handed out.
    ("enable.partition.eof", "true"),
    // The default of 1 s holds a fast reader back whenever its queue was full.
    ("fetch.queue.backoff.ms", "5"),
    ("queued.max.messages.kbytes", "65536"),
    ("socket.timeout.ms", "10000"),
];

/// How long the brokers may send nothing of a range that they have.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the log has to end within a range before that is believed: a leader that was just elected
/// may know of fewer records than the one that named the range's end.
const END_GRACE: Duration = Duration::from_secs(10);
/// How often the brokers are asked meanwhile.
const END_ASKED_EVERY: Duration = Duration::from_secs(1);

/// Reads the topic from anywhere.
pub struct KafkaReader {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    partitions: u16,
    /// The partition that is being fetched, and the offset that comes next.
    position: Option<(PartitionId, Offset)>,
}

impl ConsumerContext for LogContext {}

impl KafkaReader {
    /// Connects to the brokers. The group of `config` is only asked for its committed offsets. Blocks.
    ///
    /// `LogError::Contract` when there is no such topic, or it has another number of partitions.
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client(&SETTINGS)?;
        client.set("group.id", &config.group);
        let consumer = BaseConsumer::from_config_and_context(&client, LogContext)
            .map_err(|error| classify("starting a reader of the topic", error))?;
        check_topic(&consumer, config)?;
        Ok(Self {
            consumer,
            topic: config.topic.clone(),
            partitions: config.partitions,
            position: None,
        })
    }

    fn seek(&mut self, partition: PartitionId, from: Offset) -> Result<(), LogError> {
        let failed = |error| classify("starting to read a range", error);
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = KafkaOffset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, i32::from(partition), offset).map_err(failed)?;
        self.consumer.assign(&list).map_err(failed)?;
        self.position = Some((partition, from));
        Ok(())
    }

    /// Whether the log still has the end of a range in which no more records are found: then the rest are
    /// markers of transactions.
    fn check_end(&mut self, partition: PartitionId, until: Offset) -> Result<(), LogError> {
        let Watermarks { high, .. } = self.watermarks(partition)?;
        if high >= until {
            return Ok(());
        }
        self.position = None;
        Err(transient(format!(
            "partition {partition} ends at offset {high} and ended at {until} before: a new leader may not know its records yet, or they are lost"
        )))
    }

    fn gap(&mut self, partition: PartitionId, expected: Offset) -> LogError {
        self.position = None;
        match self.watermarks(partition) {
            Ok(Watermarks { low, .. }) => LogError::Gap { partition, expected, low },
            Err(error) => error,
        }
    }
}

/// With another number of partitions, no record would stand where it belongs.
fn check_topic(consumer: &BaseConsumer<LogContext>, config: &KafkaConfig) -> Result<(), LogError> {
    let metadata = consumer
        .fetch_metadata(Some(&config.topic), REQUEST_TIMEOUT)
        .map_err(|error| classify("reading the topic's partitions", error))?;
    let found = metadata.topics().iter().find(|topic| topic.name() == config.topic);
    match found.map_or(0, |topic| topic.partitions().len()) {
        0 => Err(LogError::Contract(format!("there is no topic `{}`", config.topic))),
        count if count == usize::from(config.partitions) => Ok(()),
        count => Err(LogError::Contract(format!(
            "`{}` has {count} partitions and {} were configured; configure the count it has",
            config.topic, config.partitions
        ))),
    }
}

/// Whether reading has arrived at `until`, or has enough.
fn take(
    message: &BorrowedMessage<'_>,
    until: Offset,
    records: &mut FetchedRecords,
    next: &mut Offset,
) -> bool {
    let offset = message.offset().cast_unsigned();
    if message.partition() != i32::from(records.partition) || offset < *next {
        return false;
    }
    if offset >= until {
        *next = until;
        return true;
    }
    records.push(offset, message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    *next = offset + 1;
    *next == until || records.len() >= POLL_RECORDS_MAX || records.byte_len() >= POLL_BYTES_MAX
}

fn transient(text: String) -> LogError {
    LogError::Transient { operation: "reading a range", source: text.into() }
}

fn known_offset(offset: i64) -> Result<Offset, LogError> {
    u64::try_from(offset).map_err(|source| LogError::Transient {
        operation: "reading an offset",
        source: source.into(),
    })
}

impl EventLogReader for KafkaReader {
    fn partition_count(&self) -> u16 {
        self.partitions
    }

    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError> {
        let range =
            self.consumer.fetch_watermarks(&self.topic, i32::from(partition), REQUEST_TIMEOUT);
        let (low, high) = range.map_err(|error| classify("reading the log's range", error))?;
        Ok(Watermarks { low: known_offset(low)?, high: known_offset(high)? })
    }

    fn offset_for_time(
        &mut self,
        partition: PartitionId,
        at: DateTime<Utc>,
    ) -> Result<Offset, LogError> {
        let failed = |error| classify("looking up a time", error);
        let mut times = TopicPartitionList::with_capacity(1);
        let time = KafkaOffset::Offset(at.timestamp_millis().max(0));
        times.add_partition_offset(&self.topic, i32::from(partition), time).map_err(failed)?;
        let found = self.consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
        if let Some(found) = found.find_partition(&self.topic, i32::from(partition)) {
            found.error().map_err(failed)?;
            if let KafkaOffset::Offset(offset) = found.offset() {
                return known_offset(offset);
            }
        }
        Ok(self.watermarks(partition)?.high)
    }

    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError> {
        let failed = |error| classify("reading committed offsets", error);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, i32::from(partition));
        let list = self.consumer.committed_offsets(list, REQUEST_TIMEOUT).map_err(failed)?;
        let Some(found) = list.find_partition(&self.topic, i32::from(partition)) else {
            return Ok(None);
        };
        found.error().map_err(failed)?;
        match found.offset() {
            KafkaOffset::Offset(offset) => known_offset(offset).map(Some),
            _ => Ok(None),
        }
    }

    fn read(
        &mut self,
        partition: PartitionId,
        from: Offset,
        until: Offset,
    ) -> Result<Scanned, LogError> {
        let mut records = FetchedRecords::new(partition);
        let mut next = from;
        if from >= until {
            return Ok(Scanned { records, next });
        }
        let mut fresh = self.position != Some((partition, from));
        if fresh {
            self.seek(partition, from)?;
        }
        let mut heard = Instant::now();
        // Since when the log is said to end at `next`.
        let mut ended: Option<Instant> = None;
        loop {
            let (before, left) = (next, SILENCE_MAX.saturating_sub(heard.elapsed()));
            let wait = if ended.is_some() { left.min(END_ASKED_EVERY) } else { left };
            match self.consumer.poll(wait) {
                Some(Ok(message)) if take(&message, until, &mut records, &mut next) => break,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    ended = ended.filter(|_| next == before);
                }
                Some(Err(KafkaError::PartitionEOF(end))) if end == i32::from(partition) => {
                    if !fresh {
                        // It may be the end that the log had when an earlier range was read.
                        self.seek(partition, next)?;
                        fresh = true;
                    } else if ended.get_or_insert_with(Instant::now).elapsed() >= END_GRACE {
                        self.check_end(partition, until)?;
                        next = until;
                        break;
                    }
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                    ) => {
                        return Err(self.gap(partition, next));
                    }
                    _ => match classify("reading a range", error) {
                        LogError::Transient { .. } => {}
                        error => return Err(error),
                    },
                },
                None if left.is_zero() => {
                    return Err(transient(format!(
                        "no record of partition {partition} from offset {next} on within {SILENCE_MAX:?}"
                    )));
                }
                None if ended.is_some() => self.seek(partition, next)?,
                None => {}
            }
        }
        // What was read beyond the range is to be read again by whoever asks for it.
        self.position =
            records.last_offset().filter(|last| last + 1 == next).map(|_| (partition, next));
        Ok(Scanned { records, next })
    }
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader")
            .field("topic", &self.topic)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
