//! What the store holds of a part of the log: what a proof compares, and what a replay must know.

use crate::config::SCAN_TIMEOUT;
use crate::error::StoreError;
use crate::event_rows::Position;
use crate::row_reader::for_each_row;
use crate::store::{UsageStore, within};
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::ops::Range;

const STORED_SPANS: &str = include_str!("../queries/select_stored_spans.sql");
const STORED_EVENTS: &str = include_str!("../queries/select_stored_events.sql");
const STORED_OFFSETS: &str = include_str!("../queries/select_stored_offsets.sql");
const STORED_CONFLICTS: &str = include_str!("../queries/select_stored_conflicts.sql");
const PARKED_OFFSETS: &str = include_str!("../queries/select_parked_offsets.sql");
const AUDIT_RANGES: &str = include_str!("../queries/select_audit_ranges.sql");
const AUDIT_GAPS: &str = include_str!("../queries/select_audit_gaps.sql");
const AUDIT_EPOCHS: &str = include_str!("../queries/select_audit_epochs.sql");
const FIRST_COPIES: &str = include_str!("../queries/select_first_copies.sql");
const EVENT_AT: &str = include_str!("../queries/select_event_at.sql");

/// A half-open period of acceptance, of one organization or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub organization: Option<String>,
}

impl Period {
    pub(crate) fn organization(&self) -> &str {
        self.organization.as_deref().unwrap_or("")
    }
}

/// A range of offsets of one partition, in one life of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRange {
    pub epoch: u16,
    pub partition: u16,
    pub offsets: Range<u64>,
}

/// The stored events of a period in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSpan {
    pub epoch: u16,
    pub partition: u16,
    /// First and last offset, both inclusive.
    pub first: u64,
    pub last: u64,
    /// Rows, of which some may be copies that were not merged yet.
    pub rows: u64,
}

/// A row of `usage_events`.
#[derive(Clone, Debug)]
pub struct StoredEvent<'a> {
    pub position: Position,
    pub organization_id: Cow<'a, str>,
    pub transaction_scope: Cow<'a, str>,
    pub transaction_id: Cow<'a, str>,
    pub external_customer_id: Cow<'a, str>,
    pub external_subscription_id: Cow<'a, str>,
    pub code: Cow<'a, str>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// In 10⁻¹².
    pub units: Option<i128>,
    /// XXH3-64 of the JSON text.
    pub properties_hash: u64,
    pub accepted_at: DateTime<Utc>,
    /// See [`crate::reused_ids::key_of`].
    pub identity_key: u64,
}

/// A row of `usage_event_conflicts`.
#[derive(Clone, Debug)]
pub struct StoredConflict<'a> {
    pub offset: u64,
    pub organization_id: Cow<'a, str>,
    pub accepted_at: DateTime<Utc>,
}

/// A row of `ingest_batches`: what became of the records of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRange {
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    pub records: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
}

/// A stored event, as the decision about a later copy needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstCopy {
    pub epoch: u16,
    pub offset: u64,
    pub hash: [u8; 16],
    pub fingerprint: u64,
    pub accepted_at: DateTime<Utc>,
}

impl UsageStore {
    /// Where the events of `period` stand in the log, for each partition in each life of the topic.
    pub async fn stored_spans(&self, period: &Period) -> Result<Vec<StoredSpan>, StoreError> {
        let query = self
            .query(STORED_SPANS)
            .param("from", period.from.timestamp_millis())
            .param("to", period.to.timestamp_millis())
            .param("organization", period.organization());
        let mut spans = Vec::new();
        self.scan(query, "reading where the stored events stand", |row| {
            spans.push(StoredSpan {
                epoch: row.take_u16()?,
                partition: row.take_u16()?,
                first: row.take_u64()?,
                last: row.take_u64()?,
                rows: row.take_u64()?,
            });
            Some(())
        })
        .await?;
        Ok(spans)
    }

    /// Calls `each` for every row of `partition` that was accepted in `period`, whether billable or not. In no
    /// order, and copies of a row come repeatedly.
    pub async fn stored_events(
        &self,
        partition: u16,
        period: &Period,
        mut each: impl FnMut(StoredEvent<'_>),
    ) -> Result<u64, StoreError> {
        let query = self
            .query(STORED_EVENTS)
            .param("partition", partition)
            .param("from", period.from.timestamp_millis())
            .param("to", period.to.timestamp_millis())
            .param("organization", period.organization());
        self.scan(query, "reading the stored events", |row| {
            let epoch = row.take_u16()?;
            let position = Position { epoch, partition, offset: row.take_u64()? };
            each(StoredEvent {
                position,
                organization_id: row.take_text()?,
                transaction_scope: row.take_text()?,
                transaction_id: row.take_text()?,
                external_customer_id: row.take_text()?,
                external_subscription_id: row.take_text()?,
                code: row.take_text()?,
                timestamp: row.take_millis()?,
                units: row.take_units()?,
                properties_hash: row.take_u64()?,
                accepted_at: row.take_instant()?,
                identity_key: row.take_u64()?,
            });
            Some(())
        })
        .await
    }

    /// Calls `each` for every offset of `range` at which an event is stored, in no order.
    pub async fn stored_offsets(
        &self,
        range: &LogRange,
        mut each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        let query = in_range(self.query(STORED_OFFSETS), range);
        self.scan(query, "reading the stored offsets", |row| {
            each(row.take_u64()?);
            Some(())
        })
        .await
    }

    /// Calls `each` for every refused copy in `range`, in order.
    pub async fn stored_conflicts(
        &self,
        range: &LogRange,
        organization: Option<&str>,
        mut each: impl FnMut(StoredConflict<'_>),
    ) -> Result<u64, StoreError> {
        let query = in_range(self.query(STORED_CONFLICTS), range)
            .param("organization", organization.unwrap_or(""));
        self.rows(query, "reading the stored conflicts", |row| {
            each(StoredConflict {
                offset: row.take_u64()?,
                organization_id: row.take_text()?,
                accepted_at: row.take_instant()?,
            });
            Some(())
        })
        .await
    }

    /// Calls `each` for every offset of `range` whose record is parked, in order.
    pub async fn parked_offsets(
        &self,
        topic: &str,
        range: &LogRange,
        mut each: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        let query = in_range(self.query(PARKED_OFFSETS), range).param("topic", topic);
        self.rows(query, "reading the parked records", |row| {
            each(row.take_u64()?);
            Some(())
        })
        .await
    }

    /// What the audit says of the records of `range`, by ranges that overlap it and were inserted within
    /// `inserted`, in the order of their first offsets.
    pub async fn audit_ranges(
        &self,
        topic: &str,
        range: &LogRange,
        inserted: Range<DateTime<Utc>>,
    ) -> Result<Vec<AuditRange>, StoreError> {
        let query = in_range(self.query(AUDIT_RANGES), range)
            .param("topic", topic)
            .param("since", inserted.start.timestamp_millis())
            .param("until", inserted.end.timestamp_millis());
        let mut ranges = Vec::new();
        self.rows(query, "reading the audit", |row| {
            ranges.push(AuditRange {
                first: row.take_u64()?,
                last: row.take_u64()?,
                records: row.take_u64()?,
                stored: row.take_u64()?,
                duplicates: row.take_u64()?,
                conflicts: row.take_u64()?,
                dead_letters: row.take_u64()?,
            });
            Some(())
        })
        .await?;
        Ok(ranges)
    }

    /// The offsets before `end` of which no range of the audit speaks, and whose records may have been
    /// decided within `decided`. With the last offset there is as the `end`, what is behind the last range
    /// is no gap.
    pub async fn audit_gaps(
        &self,
        topic: &str,
        (epoch, partition): (u16, u16),
        end: u64,
        decided: Range<DateTime<Utc>>,
    ) -> Result<Vec<Range<u64>>, StoreError> {
        let query = self
            .query(AUDIT_GAPS)
            .param("topic", topic)
            .param("epoch", epoch)
            .param("partition", partition)
            .param("end", end)
            .param("since", decided.start.timestamp_millis())
            .param("until", decided.end.timestamp_millis());
        let mut gaps = Vec::new();
        self.rows(query, "looking for gaps of the audit", |row| {
            gaps.push(row.take_u64()?..row.take_u64()?);
            Some(())
        })
        .await?;
        Ok(gaps)
    }

    /// The lives of the topic before `epoch` that the audit of `partition` speaks of, in order.
    pub async fn audit_epochs(
        &self,
        topic: &str,
        partition: u16,
        epoch: u16,
    ) -> Result<Vec<u16>, StoreError> {
        let query = self
            .query(AUDIT_EPOCHS)
            .param("topic", topic)
            .param("partition", partition)
            .param("epoch", epoch);
        let mut epochs = Vec::new();
        self.rows(query, "reading the audit's epochs", |row| {
            epochs.push(row.take_u16()?);
            Some(())
        })
        .await?;
        Ok(epochs)
    }

    /// Calls `each` for every stored event of `partition` whose record stands before `end` in the life
    /// `epoch` of the topic, or in an earlier one. In no order, and copies of a row come repeatedly.
    /// With `keys`, at most [`crate::reused_ids::KEYS_MAX`] of them, only for events whose identities have these keys: then
    /// the server reads two columns of all events, and without them all five.
    pub async fn first_copies(
        &self,
        epoch: u16,
        partition: u16,
        end: u64,
        keys: Option<&[u64]>,
        mut each: impl FnMut(FirstCopy),
    ) -> Result<u64, StoreError> {
        let query = self
            .query(FIRST_COPIES)
            .param("epoch", epoch)
            .param("partition", partition)
            .param("end", end)
            .param("all", keys.is_none())
            .param("keys", keys.unwrap_or_default());
        self.scan(query, "reading the stored identities", |row| {
            each(FirstCopy {
                epoch: row.take_u16()?,
                offset: row.take_u64()?,
                hash: row.take_hash()?,
                fingerprint: row.take_u64()?,
                accepted_at: row.take_instant()?,
            });
            Some(())
        })
        .await
    }

    /// `(organization_id, transaction_scope, transaction_id)` of the event that is stored from `position`.
    pub async fn event_at(
        &self,
        position: Position,
    ) -> Result<Option<(String, String, String)>, StoreError> {
        let Position { epoch, partition, offset } = position;
        let query = self
            .query(EVENT_AT)
            .param("epoch", epoch)
            .param("partition", partition)
            .param("offset", offset);
        within(SCAN_TIMEOUT, "reading a stored event", query.fetch_optional()).await
    }

    /// The rows of a query that may have to read a whole column of all events before it answers.
    pub(crate) async fn scan(
        &self,
        query: clickhouse::query::Query,
        operation: &'static str,
        row: impl FnMut(&mut crate::row_reader::RowReader<'_>) -> Option<()>,
    ) -> Result<u64, StoreError> {
        for_each_row(query, operation, SCAN_TIMEOUT, row).await
    }

    pub(crate) async fn rows(
        &self,
        query: clickhouse::query::Query,
        operation: &'static str,
        row: impl FnMut(&mut crate::row_reader::RowReader<'_>) -> Option<()>,
    ) -> Result<u64, StoreError> {
        for_each_row(query, operation, self.config.query_timeout, row).await
    }
}

fn in_range(query: clickhouse::query::Query, range: &LogRange) -> clickhouse::query::Query {
    let LogRange { epoch, partition, offsets } = range;
    query
        .param("epoch", epoch)
        .param("partition", partition)
        .param("first", offsets.start)
        .param("end", offsets.end)
}
