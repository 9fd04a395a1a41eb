//! What is stored already: the identities the dedup index is rebuilt from, and how far the audit goes.

use crate::error::StoreError;
use crate::native::{Column, for_each_block};
use crate::store::{UsageStore, within};
use chrono::{DateTime, Utc};
use std::hash::{BuildHasher as _, RandomState};

const IDENTITIES: &str = include_str!("../queries/select_identities.sql");
const COUNTS: &str = include_str!("../queries/count_identities.sql");
const HIGHEST_OFFSET: &str = include_str!("../queries/select_highest_offset.sql");
const RECENT_INSERT: &str = include_str!("../queries/select_recent_insert.sql");
const SYNC: [&str; 2] = [
    include_str!("../queries/sync_usage_events.sql"),
    include_str!("../queries/sync_ingest_batches.sql"),
];
const READ_IDENTITIES: &str = "reading the stored identities";
const COUNT_IDENTITIES: &str = "counting the stored identities";
const READ_HIGHEST_OFFSET: &str = "reading the highest stored offset";
const READ_RECENT_INSERT: &str = "reading when the latest inserts were";
const SYNC_REPLICA: &str = "waiting for the replica to have every confirmed row";

/// The columns of `select_identities.sql`.
const IDENTITY_COLUMNS: [Column; 6] = [
    Column { name: "kafka_partition", kind: "UInt16", width: 2 },
    Column { name: "topic_epoch", kind: "UInt16", width: 2 },
    Column { name: "kafka_offset", kind: "UInt64", width: 8 },
    Column { name: "identity_hash", kind: "FixedString(16)", width: 16 },
    Column { name: "payload_fingerprint", kind: "UInt64", width: 8 },
    Column { name: "accepted_hour", kind: "UInt32", width: 4 },
];

/// How long a session on a replica may be silent, in seconds. Its longest silence is a streamed answer.
const SESSION_SECONDS: &str = "600";

/// An accepted event, as the dedup index remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdentityRow {
    pub partition: u16,
    pub epoch: u16,
    pub offset: u64,
    pub hash: [u8; 16],
    pub fingerprint: u64,
    /// The hour in which the API accepted the event, counted from 1970.
    pub accepted_hour: u32,
}

/// When a consumer was at work last, and what the time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentInsert {
    /// The earliest time of the newest 100 ranges of the audit, by the clock of the consumer that made
    /// them. None when the audit has no range.
    pub inserted_at: Option<DateTime<Utc>>,
    /// The present, by the clock of the server that answered.
    pub now: DateTime<Utc>,
}

/// Which identities to read.
#[derive(Clone, Copy, Debug)]
pub struct Remembered<'a> {
    /// Rows of this epoch of the topic and those before it.
    pub epoch: u16,
    pub partitions: &'a [u16],
    /// Rows of events that were accepted at or after it.
    pub since: DateTime<Utc>,
}

impl UsageStore {
    /// A handle to one server which has every row that was confirmed before the call.
    ///
    /// On a cluster, an insert is confirmed by a majority of the replicas, and the one that is asked
    /// may lag behind. It is made to catch up; requests of the returned handle are of one session,
    /// which other servers behind the same address do not know and refuse. A single server needs
    /// none of that.
    ///
    /// # Errors
    /// When the replica cannot catch up within the query timeout. It may later.
    pub async fn caught_up(&self) -> Result<Self, StoreError> {
        if self.config.cluster.is_none() {
            return Ok(self.clone());
        }
        // The keys of a hasher are random: no two callers share a session.
        let session = format!("rebuild-{:016x}", RandomState::new().hash_one(()));
        let client = self
            .client
            .clone()
            .with_setting("session_id", session)
            .with_setting("session_timeout", SESSION_SECONDS);
        let opened = Self { client, ..self.clone() };
        let limit = self.config.query_timeout;
        within(limit, SYNC_REPLICA, opened.query("SELECT 1").execute()).await?;
        // From here on the session has to be there already.
        let store =
            Self { client: opened.client.clone().with_setting("session_check", "1"), ..opened };
        for statement in SYNC {
            within(limit, SYNC_REPLICA, store.query(statement).execute()).await?;
        }
        Ok(store)
    }

    /// How many rows [`Self::remembered_identities`] will bring for each partition that has any.
    pub async fn count_identities(
        &self,
        remembered: Remembered<'_>,
    ) -> Result<Vec<(u16, u64)>, StoreError> {
        let query = bind(self.query(COUNTS), remembered).fetch_all();
        within(self.config.query_timeout, COUNT_IDENTITIES, query).await
    }

    /// Calls `each` for every stored event that is asked for. Returns how many there were.
    ///
    /// In no order, and copies of a row that were not merged yet come repeatedly. The answer is
    /// streamed: memory is bounded by one block of 65,536 rows of 40 bytes. Scans the months in
    /// question once, at about 70 ns of server CPU for each row of whichever partition.
    pub async fn remembered_identities(
        &self,
        remembered: Remembered<'_>,
        mut each: impl FnMut(IdentityRow),
    ) -> Result<u64, StoreError> {
        let query = bind(self.query(IDENTITIES), remembered);
        let limit = self.config.query_timeout;
        for_each_block(query, READ_IDENTITIES, limit, &IDENTITY_COLUMNS, |columns| {
            identities(columns, &mut each);
        })
        .await
    }

    /// The last offset that the audit speaks of, in a partition of `topic` of this epoch. All that is
    /// committed is at or before it.
    pub async fn highest_stored_offset(
        &self,
        topic: &str,
        epoch: u16,
        partition: u16,
    ) -> Result<Option<u64>, StoreError> {
        let query = self
            .query(HIGHEST_OFFSET)
            .param("topic", topic)
            .param("epoch", epoch)
            .param("partition", partition);
        within(self.config.query_timeout, READ_HIGHEST_OFFSET, query.fetch_one::<Option<u64>>())
            .await
    }

    /// When the last inserts of a partition of `topic` were, and the time by the store's clock.
    pub async fn recent_insert(
        &self,
        topic: &str,
        epoch: u16,
        partition: u16,
    ) -> Result<RecentInsert, StoreError> {
        let query = self
            .query(RECENT_INSERT)
            .param("topic", topic)
            .param("epoch", epoch)
            .param("partition", partition);
        // DateTime64(3) is a number of milliseconds.
        let answer = query.fetch_one::<(Option<i64>, i64)>();
        let (inserted_at, now) =
            within(self.config.query_timeout, READ_RECENT_INSERT, answer).await?;
        Ok(RecentInsert {
            inserted_at: inserted_at.and_then(DateTime::from_timestamp_millis),
            now: DateTime::from_timestamp_millis(now).expect("DateTime64 ends in the year 2299"),
        })
    }
}

/// Calls `each` for the rows of a block.
fn identities(columns: [&[u8]; 6], each: &mut impl FnMut(IdentityRow)) {
    let [partitions, epochs, offsets, hashes, fingerprints, hours] = columns;
    let places = partitions.as_chunks().0.iter().zip(epochs.as_chunks().0);
    let places = places.zip(offsets.as_chunks().0);
    let contents = hashes.as_chunks().0.iter().zip(fingerprints.as_chunks().0);
    let contents = contents.zip(hours.as_chunks().0);
    for (((partition, epoch), offset), ((hash, fingerprint), hour)) in places.zip(contents) {
        each(IdentityRow {
            partition: u16::from_le_bytes(*partition),
            epoch: u16::from_le_bytes(*epoch),
            offset: u64::from_le_bytes(*offset),
            hash: *hash,
            fingerprint: u64::from_le_bytes(*fingerprint),
            accepted_hour: u32::from_le_bytes(*hour),
        });
    }
}

fn bind(query: clickhouse::query::Query, remembered: Remembered<'_>) -> clickhouse::query::Query {
    let Remembered { epoch, partitions, since } = remembered;
    query
        .param("epoch", epoch)
        .param("partitions", partitions)
        .param("since", since.timestamp_millis())
}
