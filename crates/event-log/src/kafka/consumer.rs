//! The reading end on Kafka: a member of the consumer group, polled by one thread.
//!
//! Rebalances run inside of `poll`. A revocation takes effect in librdkafka's callback; an
//! assignment is only noted there and answered after it, because its start offsets take requests.

use super::fetched::Fetched;
use super::rebalances::{Rebalance, Rebalances};
use super::{KafkaConfig, REQUEST_TIMEOUT, classify};
use crate::position::{check_commit, starting_offset};
use crate::{
    Assignment, EventLogConsumer, FetchedRecords, LogError, Offset, PartitionId, Polled, Watermarks,
};
use chrono::{DateTime, Utc};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

const SETTINGS: [(&str, &str); 13] = [
    // Offsets are committed by us, after the rows are stored, and by nobody else.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that is not in the log is an error for people, never a silent jump.
    ("auto.offset.reset", "error"),
    // Producers must not use transactions (docs/log-format.md): their control records take offsets
    // that are never read. Of one that does, at least the aborted records never happened.
    ("isolation.level", "read_committed"),
    // A damaged record must not become a wrong one.
    ("check.crcs", "true"),
    // The classic protocol with eager rebalances: cooperative ones can rebalance for ever when
    // offsets are committed manually, and the client of the new protocol has fatal errors in
    // librdkafka 2.12.1.
    ("group.protocol", "classic"),
    ("partition.assignment.strategy", "range"),
    // Longer than any pause between two polls; a member that stops polling loses its partitions.
    ("max.poll.interval.ms", "300000"),
    // The default of 1 s holds a fast reader back whenever its queue was full.
    ("fetch.queue.backoff.ms", "5"),
    ("queued.min.messages", "50000"),
    ("queued.max.messages.kbytes", "65536"),
    ("enable.partition.eof", "false"),
    ("socket.timeout.ms", "10000"),
];

/// How long to wait before start offsets are asked for again.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);
/// How long a new leader may seem to end below a committed offset before it is taken for a loss.
const REGRESSION_GRACE: Duration = Duration::from_secs(10);

/// Reads the topic as a member of the group.
pub struct KafkaConsumer {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    partitions: u16,
    /// The assigned partitions and where each goes on.
    cursors: BTreeMap<PartitionId, Cursor>,
    /// An assignment whose start offsets are not known yet.
    pending: Option<PendingAssignment>,
    /// An error that came after records of the same poll, to be returned by the next one.
    deferred: Option<LogError>,
    /// librdkafka found a position outside of the log, and which one has to be found out.
    out_of_range: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    next: Offset,
    paused: bool,
    /// A record arrived while paused and was left in the log; resuming has to go back to it.
    rewind: bool,
}

#[derive(Debug)]
struct PendingAssignment {
    partitions: Vec<PartitionId>,
    since: Instant,
    next_attempt: Instant,
}

impl KafkaConsumer {
    /// Joins the group in the background; the first polls bring the assignment.
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client(&SETTINGS)?;
        client
            .set("group.id", &config.group)
            // Partitions of a member that crashed are idle for this long, with or without an instance
            // id. Heartbeats come from a thread of librdkafka, so only a process that stands still as
            // a whole is taken for dead, and one that comes back is fenced and finds its index.
            .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
            // Also how soon a member hears that the group rebalances. Four may be lost in a row.
            .set("heartbeat.interval.ms", (config.session_timeout.as_millis() / 5).to_string());
        if let Some(instance) = &config.group_instance_id {
            client.set("group.instance.id", instance);
        }
        let failed = |error| classify("joining the consumer group", error);
        let consumer = BaseConsumer::from_config_and_context(&client, Rebalances::default());
        let consumer = consumer.map_err(failed)?;
        consumer.subscribe(&[&config.topic]).map_err(failed)?;
        Ok(Self {
            consumer,
            topic: config.topic.clone(),
            partitions: config.partitions,
            cursors: BTreeMap::new(),
            pending: None,
            deferred: None,
            out_of_range: false,
        })
    }

    /// Applies what librdkafka announced, in order, up to what the caller has to know.
    fn apply_rebalances(&mut self) -> Result<Option<Polled>, LogError> {
        while let Some(rebalance) = self.consumer.context().next() {
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    let partitions = self.known_partitions(&partitions)?;
                    let now = Instant::now();
                    self.pending =
                        Some(PendingAssignment { partitions, since: now, next_attempt: now });
                }
                // Of an assignment that was never told of there is nothing to take back.
                Rebalance::Revoked if self.pending.take().is_some() => {}
                Rebalance::Revoked => {
                    self.out_of_range = false;
                    let revoked = std::mem::take(&mut self.cursors).into_keys().collect();
                    return Ok(Some(Polled::Revoked(revoked)));
                }
            }
        }
        self.assign_pending()
    }

    fn known_partitions(&self, partitions: &[i32]) -> Result<Vec<PartitionId>, LogError> {
        let known = |partition: &i32| {
            u16::try_from(*partition).ok().filter(|p| *p < self.partitions).ok_or_else(|| {
                LogError::Contract(format!(
                    "`{}` has a partition {partition}, but {} were configured; records of one event \
                     may now be in two partitions",
                    self.topic, self.partitions
                ))
            })
        };
        partitions.iter().map(known).collect()
    }

    /// Answers the pending assignment once its start offsets are known.
    fn assign_pending(&mut self) -> Result<Option<Polled>, LogError> {
        let Some(pending) = &mut self.pending else { return Ok(None) };
        if Instant::now() < pending.next_attempt {
            return Ok(None);
        }
        pending.next_attempt = Instant::now() + LOOKUP_PAUSE;
        let (partitions, since) = (pending.partitions.clone(), pending.since);
        let assignments = match self.starting_offsets(&partitions) {
            Ok(assignments) => assignments,
            // A new leader learns how far its records are committed a moment after its election.
            Err(LogError::Contract(_)) if since.elapsed() < REGRESSION_GRACE => return Ok(None),
            Err(error @ LogError::Transient { .. }) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "start offsets are not known yet"
                );
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let starts = assignments.iter().map(|assignment| (assignment.partition, assignment.start));
        let list = self.offset_list(starts)?;
        self.consumer
            .assign(&list)
            .map_err(|error| classify("starting to read the assigned partitions", error))?;
        let cursor = |next| Cursor { next, paused: false, rewind: false };
        self.cursors = assignments.iter().map(|a| (a.partition, cursor(a.start))).collect();
        self.pending = None;
        Ok(Some(Polled::Assigned(assignments)))
    }

    fn starting_offsets(&self, partitions: &[PartitionId]) -> Result<Vec<Assignment>, LogError> {
        let committed = self.committed_offsets(partitions)?;
        let start = |(partition, committed): (PartitionId, Option<Offset>)| {
            let range = self.fetch_watermarks(partition)?;
            Ok(Assignment { partition, start: starting_offset(partition, committed, range)? })
        };
        committed.into_iter().map(start).collect()
    }

    fn committed_offsets(
        &self,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Option<Offset>)>, LogError> {
        let failed = |error| classify("reading committed offsets", error);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, i32::from(*partition));
        }
        let list = self.consumer.committed_offsets(list, REQUEST_TIMEOUT).map_err(failed)?;
        let read = |partition: &PartitionId| {
            let found = list.find_partition(&self.topic, i32::from(*partition));
            let Some(found) = found else { return Ok((*partition, None)) };
            found.error().map_err(failed)?;
            match found.offset() {
                KafkaOffset::Offset(offset) => Ok((*partition, Some(known_offset(offset)?))),
                _ => Ok((*partition, None)),
            }
        };
        partitions.iter().map(read).collect()
    }

    fn fetch_watermarks(&self, partition: PartitionId) -> Result<Watermarks, LogError> {
        let range =
            self.consumer.fetch_watermarks(&self.topic, i32::from(partition), REQUEST_TIMEOUT);
        let (low, high) = range.map_err(|error| classify("reading the log's range", error))?;
        Ok(Watermarks { low: known_offset(low)?, high: known_offset(high)? })
    }

    /// Finds the position that is not in the log; when all are, reading goes on from them.
    fn find_out_of_range(&mut self) -> Result<(), LogError> {
        for (partition, cursor) in &self.cursors {
            let range = self.fetch_watermarks(*partition)?;
            starting_offset(*partition, Some(cursor.next), range)?;
        }
        for (partition, cursor) in &self.cursors {
            self.seek(*partition, cursor.next)?;
        }
        self.out_of_range = false;
        Ok(())
    }

    fn seek(&self, partition: PartitionId, next: Offset) -> Result<(), LogError> {
        let offset = KafkaOffset::Offset(kafka_offset(next));
        self.consumer
            .seek(&self.topic, i32::from(partition), offset, REQUEST_TIMEOUT)
            .map_err(|error| classify("going back to a position", error))
    }

    /// Takes what librdkafka has fetched: waits for the first record, never for a further one.
    fn fetch(&mut self, wait: Duration) -> Result<Vec<FetchedRecords>, LogError> {
        let deadline = Instant::now() + wait;
        let mut fetched = Fetched::default();
        loop {
            let left = if fetched.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match self.consumer.poll(left) {
                Some(Ok(message)) => take(&message, &mut self.cursors, &mut fetched),
                Some(Err(error)) => {
                    if let Err(error) = self.consumption_error(error) {
                        // What was taken before it counts as handed out, so it goes first.
                        self.deferred = Some(error);
                        break;
                    }
                }
                None if left.is_zero() => break,
                None => {}
            }
            if fetched.is_full() || self.out_of_range || self.consumer.context().announced() {
                break;
            }
        }
        if fetched.is_empty()
            && let Some(error) = self.deferred.take()
        {
            return Err(error);
        }
        Ok(fetched.into_partitions())
    }

    /// Lost connections heal by themselves; everything else is for the caller.
    fn consumption_error(&mut self, error: KafkaError) -> Result<(), LogError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.out_of_range = true;
                Ok(())
            }
            // The revocation follows.
            Some(RDKafkaErrorCode::PollExceeded) => Ok(()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(classify("reading the topic", error))
            }
            _ => match classify("reading the topic", error) {
                LogError::Transient { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    fn offset_list(
        &self,
        offsets: impl ExactSizeIterator<Item = (PartitionId, Offset)>,
    ) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            let offset = KafkaOffset::Offset(kafka_offset(offset));
            list.add_partition_offset(&self.topic, i32::from(partition), offset)
                .map_err(|error| classify("naming an offset", error))?;
        }
        Ok(list)
    }

    /// The named partitions as librdkafka wants them; `Fenced` when one is not ours.
    fn owned_list(&self, partitions: &[PartitionId]) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            if !self.cursors.contains_key(partition) {
                return Err(LogError::Fenced);
            }
            list.add_partition(&self.topic, i32::from(*partition));
        }
        Ok(list)
    }
}

/// Packs a record, unless it is not ours to deliver: of a partition that is gone or paused, or a repeat.
fn take(
    message: &BorrowedMessage<'_>,
    cursors: &mut BTreeMap<PartitionId, Cursor>,
    fetched: &mut Fetched,
) {
    let partition = u16::try_from(message.partition()).ok();
    let Some((partition, cursor)) = partition.and_then(|p| Some((p, cursors.get_mut(&p)?))) else {
        return;
    };
    let offset = message.offset().cast_unsigned();
    if offset < cursor.next {
        return;
    }
    if cursor.paused || cursor.rewind {
        cursor.rewind = true;
        return;
    }
    cursor.next = offset + 1;
    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    fetched.push(partition, offset, key, value);
}

fn kafka_offset(offset: Offset) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn known_offset(offset: i64) -> Result<Offset, LogError> {
    u64::try_from(offset).map_err(|source| LogError::Transient {
        operation: "reading an offset",
        source: source.into(),
    })
}

impl EventLogConsumer for KafkaConsumer {
    /// May take a few requests longer than `wait` when partitions were just assigned.
    fn poll(&mut self, wait: Duration) -> Result<Polled, LogError> {
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        if let Some(polled) = self.apply_rebalances()? {
            return Ok(polled);
        }
        if self.out_of_range {
            self.find_out_of_range()?;
        }
        let wait = if self.pending.is_some() { wait.min(LOOKUP_PAUSE) } else { wait };
        let fetched = self.fetch(wait)?;
        if !fetched.is_empty() {
            return Ok(Polled::Records(fetched));
        }
        Ok(self.apply_rebalances()?.unwrap_or(Polled::Idle))
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        let list = self.owned_list(partitions)?;
        self.consumer.pause(&list).map_err(|error| classify("pausing partitions", error))?;
        for partition in partitions {
            self.cursors.entry(*partition).and_modify(|cursor| cursor.paused = true);
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> Result<(), LogError> {
        let list = self.owned_list(partitions)?;
        for partition in partitions {
            let cursor = self.cursors[partition];
            if cursor.rewind {
                self.seek(*partition, cursor.next)?;
            }
            let resumed = Cursor { paused: false, rewind: false, ..cursor };
            self.cursors.insert(*partition, resumed);
        }
        self.consumer.resume(&list).map_err(|error| classify("resuming partitions", error))
    }

    fn commit(&mut self, next: &[(PartitionId, Offset)]) -> Result<(), LogError> {
        for (partition, offset) in next {
            // The broker does not ask whether a member owns what it commits; so we do.
            let cursor = self.cursors.get(partition).ok_or(LogError::Fenced)?;
            check_commit(*partition, *offset, cursor.next)?;
        }
        if next.is_empty() {
            return Ok(());
        }
        if self.consumer.context().announced() || self.consumer.assignment_lost() {
            return Err(LogError::Fenced);
        }
        let list = self.offset_list(next.iter().copied())?;
        self.consumer
            .commit(&list, CommitMode::Sync)
            .map_err(|error| classify("committing offsets", error))
    }

    fn committed(&mut self, partition: PartitionId) -> Result<Option<Offset>, LogError> {
        Ok(self.committed_offsets(&[partition])?.first().and_then(|(_, committed)| *committed))
    }

    fn watermarks(&mut self, partition: PartitionId) -> Result<Watermarks, LogError> {
        self.fetch_watermarks(partition)
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
        let found = found.find_partition(&self.topic, i32::from(partition));
        if let Some(found) = found {
            found.error().map_err(failed)?;
            if let KafkaOffset::Offset(offset) = found.offset() {
                return known_offset(offset);
            }
        }
        Ok(self.fetch_watermarks(partition)?.high)
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // Closing polls until the group is left; an assignment would then wait for an answer for ever.
        self.consumer.context().close();
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "the consumer could not give up its partitions");
        }
    }
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer")
            .field("topic", &self.topic)
            .field("cursors", &self.cursors)
            .finish_non_exhaustive()
    }
}
