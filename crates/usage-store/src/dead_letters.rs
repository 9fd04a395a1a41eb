//! Reads the records that were parked because they are no events.

use crate::error::StoreError;
use crate::event_rows::Position;
use crate::row_reader::RowReader;
use crate::store::UsageStore;
use chrono::{DateTime, Utc};
use std::collections::HashMap;

const LIST: &str = include_str!("../queries/select_dead_letters.sql");
const ONE: &str = include_str!("../queries/select_dead_letter.sql");
const BILLED_IDS: &str = include_str!("../queries/select_billed_ids.sql");
const READ: &str = "reading the dead letters";

/// A parked record, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub topic: String,
    pub position: Position,
    /// A stable code.
    pub reason: String,
    pub detail: String,
    /// Length in the log; of a longer key than 64 KiB only the beginning is kept.
    pub key_bytes: u64,
    /// Length in the log; of a longer value than 1 MiB only the beginning is kept.
    pub value_bytes: u64,
    pub parked_at: DateTime<Utc>,
}

/// What is kept of the bytes of a parked record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterBytes {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Which dead letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// All reasons when `None`.
    pub reason: Option<String>,
    /// Parked at or after it.
    pub since: DateTime<Utc>,
    /// Most that are listed.
    pub limit: u64,
}

impl UsageStore {
    /// The dead letters that `filter` lets through, those parked last first.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let query = self
            .query(LIST)
            .param("reason", filter.reason.as_deref().unwrap_or(""))
            .param("since", filter.since.timestamp_millis())
            .param("limit", filter.limit);
        let mut letters = Vec::new();
        self.rows(query, READ, |row| {
            letters.push(letter(row)?);
            Some(())
        })
        .await?;
        Ok(letters)
    }

    /// The dead letter of a record of `topic`, with its bytes, if the record is parked.
    pub async fn dead_letter(
        &self,
        topic: &str,
        position: Position,
    ) -> Result<Option<(DeadLetter, DeadLetterBytes)>, StoreError> {
        let Position { epoch, partition, offset } = position;
        let query = self
            .query(ONE)
            .param("topic", topic)
            .param("epoch", epoch)
            .param("partition", partition)
            .param("offset", offset);
        let mut found = None;
        self.rows(query, READ, |row| {
            let letter = letter(row)?;
            let (key, value) = (row.take_bytes()?.to_vec(), row.take_bytes()?.to_vec());
            found = Some((letter, DeadLetterBytes { key, value }));
            Some(())
        })
        .await?;
        Ok(found)
    }

    /// Where the events with these identity hashes are stored, however long ago; of several rows of one
    /// identity the earliest. The server scans one column of the whole table.
    pub async fn billed_ids(
        &self,
        hashes: &[[u8; 16]],
    ) -> Result<HashMap<[u8; 16], Position>, StoreError> {
        let mut billed = HashMap::new();
        if hashes.is_empty() {
            return Ok(billed);
        }
        let hex = |hash: &[u8; 16]| hash.iter().map(|byte| format!("{byte:02X}")).collect();
        let hashes: Vec<String> = hashes.iter().map(hex).collect();
        let query = self.query(BILLED_IDS).param("hashes", hashes);
        self.scan(query, "looking for ids that are billed already", |row| {
            let hash = row.take_hash()?;
            let (epoch, partition) = (row.take_u16()?, row.take_u16()?);
            let position = Position { epoch, partition, offset: row.take_u64()? };
            let place = |position: &Position| (position.epoch, position.offset);
            let known = billed.entry(hash).or_insert(position);
            if place(&position) < place(known) {
                *known = position;
            }
            Some(())
        })
        .await?;
        Ok(billed)
    }
}

fn letter(row: &mut RowReader<'_>) -> Option<DeadLetter> {
    Some(DeadLetter {
        topic: row.take_text()?.into_owned(),
        position: Position {
            epoch: row.take_u16()?,
            partition: row.take_u16()?,
            offset: row.take_u64()?,
        },
        reason: row.take_text()?.into_owned(),
        detail: row.take_text()?.into_owned(),
        key_bytes: row.take_u64()?,
        value_bytes: row.take_u64()?,
        parked_at: row.take_instant()?,
    })
}
