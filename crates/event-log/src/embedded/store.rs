//! The SQLite database of the embedded log: its schema, and every statement that touches it.

use super::EmbeddedLogOptions;
use super::blob::Blob;
use crate::{LogError, Offset, PartitionId, Watermarks};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use std::path::Path;
use std::time::Duration;

/// The layout of the tables below; another number is refused.
const SCHEMA_VERSION: i64 = 1;
const PAGE_BYTES: u64 = 8192;
/// Offsets have 48 bits, so that partition and offset make one ascending 63-bit row id.
const OFFSET_BITS: u32 = 48;
/// Pages beyond `disk_bytes_max` (4 MiB) in which offsets are committed and records swept when
/// records fill the rest: the offsets of 1,024 partitions take some 40 pages per group.
const RESERVE_PAGES: u64 = 512;
/// Most batches of one partition that one sweep deletes.
const SWEEP_BATCHES_MAX: u32 = 256;

const SCHEMA: &str = "
    CREATE TABLE log (partitions INTEGER NOT NULL) STRICT;
    CREATE TABLE ranges (
        partition INTEGER PRIMARY KEY,
        low INTEGER NOT NULL,
        -- A lower bound, moved by retention only: the high offset is the end of the last batch.
        high INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE batches (
        position INTEGER PRIMARY KEY, -- partition << 48 | first offset
        records INTEGER NOT NULL,
        appended_at INTEGER NOT NULL, -- milliseconds since 1970
        checksum INTEGER NOT NULL, -- xxh3 over this row
        bytes BLOB NOT NULL -- lz4
    ) STRICT;
    CREATE TABLE consumer_groups (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE committed_offsets (
        consumer_group TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        PRIMARY KEY (consumer_group, partition)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE probe (filler BLOB NOT NULL) STRICT;
";

/// The writer's connection.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    partitions: u16,
    /// Most pages that records may fill.
    pages_max: u64,
}

/// How far a transaction may grow the database.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// To `disk_bytes_max`.
    ForRecords,
    /// Beyond it, for what makes room.
    WithReserve,
}

/// What a sweep deletes: batches appended before `before`, or any when `regardless_of_age`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    pub(super) before: i64,
    pub(super) regardless_of_age: bool,
}

impl Store {
    pub(super) fn open(options: &EmbeddedLogOptions) -> Result<Self, LogError> {
        let failed = failed("opening the embedded log");
        let mut connection = connect(&options.path).map_err(&failed)?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
        if version == 0 {
            create(&mut connection, options.partitions).map_err(&failed)?;
        } else if version != SCHEMA_VERSION {
            return Err(other_layout(version));
        }
        let partitions: u16 = connection
            .query_row("SELECT partitions FROM log", [], |row| row.get(0))
            .map_err(&failed)?;
        if partitions != options.partitions {
            let detail = format!(
                "the embedded log has {partitions} partitions and {} were asked for; the count is fixed, \
                 because it decides which partition owns an event",
                options.partitions
            );
            return Err(LogError::Contract(detail));
        }
        let pages_max = (options.disk_bytes_max / PAGE_BYTES).max(1);
        Ok(Self { connection, partitions, pages_max })
    }

    /// The readable range of every partition.
    pub(super) fn ranges(&self) -> Result<Vec<Watermarks>, LogError> {
        (0..self.partitions)
            .map(|partition| range(&self.connection, partition))
            .collect::<rusqlite::Result<_>>()
            .map_err(failed("reading the embedded log's offsets"))
    }

    /// Starts a transaction; nothing of it is durable before its commit returns.
    pub(super) fn begin(&mut self, room: Room) -> rusqlite::Result<Transaction<'_>> {
        self.limit(room)?;
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    fn limit(&self, room: Room) -> rusqlite::Result<()> {
        let pages = match room {
            Room::ForRecords => self.pages_max,
            Room::WithReserve => self.pages_max.saturating_add(RESERVE_PAGES),
        };
        // SQLite takes a limit below the present size for that size: nothing grows, all is kept.
        self.connection.execute_batch(&format!("PRAGMA max_page_count={pages};"))
    }

    /// The append time of the newest batch, in milliseconds since 1970.
    pub(super) fn last_appended_at(&self) -> Result<i64, LogError> {
        let last = |partition| last_batch(&self.connection, partition);
        let times: rusqlite::Result<Vec<_>> = (0..self.partitions).map(last).collect();
        let times = times.map_err(failed("reading the embedded log's last batches"))?;
        Ok(times.into_iter().flatten().map(|last| last.appended_at).max().unwrap_or(0))
    }

    /// Bytes on disk that hold something.
    pub(super) fn used_bytes(&self) -> Result<u64, LogError> {
        let pages =
            |pragma: &str| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        pages("PRAGMA page_count")
            .and_then(|all| Ok(all - pages("PRAGMA freelist_count")?))
            .map(|used| used.unsigned_abs() * PAGE_BYTES)
            .map_err(failed("measuring the embedded log"))
    }

    /// Writes and deletes a little, to see whether appends would work again.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        self.limit(Room::ForRecords)?;
        self.connection.execute("INSERT INTO probe VALUES (zeroblob(262144))", [])?;
        self.connection.execute("DELETE FROM probe", []).map(drop)
    }

    /// Deletes expired batches that every group has committed. True when more may be left to delete.
    pub(super) fn sweep(&mut self, expiry: Expiry) -> Result<bool, LogError> {
        let partitions = self.partitions;
        let mut sweep = || {
            let transaction = self.begin(Room::WithReserve)?;
            let mut more = false;
            for partition in 0..partitions {
                more |= sweep_partition(&transaction, partition, expiry)?;
            }
            transaction.commit()?;
            Ok(more)
        };
        sweep().map_err(failed("deleting expired records of the embedded log"))
    }

    /// Moves everything from the write-ahead log into the database file.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// The readable range of a partition.
pub(super) fn range(
    connection: &Connection,
    partition: PartitionId,
) -> rusqlite::Result<Watermarks> {
    let (low, high): (i64, i64) = connection
        .prepare_cached("SELECT low, high FROM ranges WHERE partition = ?1")?
        .query_row([partition], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let end = last_batch(connection, partition)?.map_or(0, |last| last.end);
    Ok(Watermarks { low: low.unsigned_abs(), high: end.max(high.unsigned_abs()) })
}

/// A connection for reading a log that another process may have open, and its partition count.
pub(super) fn reader_beside(path: &Path) -> Result<(Connection, u16), LogError> {
    if !path.join("log.sqlite").is_file() {
        let detail = format!("there is no embedded log in {}", path.display());
        return Err(LogError::Contract(detail));
    }
    let failed = failed("opening the embedded log for reading");
    let connection = reader(path)?;
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
    if version != SCHEMA_VERSION {
        return Err(other_layout(version));
    }
    let partitions =
        connection.query_row("SELECT partitions FROM log", [], |row| row.get(0)).map_err(failed)?;
    Ok((connection, partitions))
}

fn other_layout(version: i64) -> LogError {
    LogError::Contract(format!(
        "the embedded log has layout {version}; this program reads {SCHEMA_VERSION}"
    ))
}

/// A connection for reading only.
pub(super) fn reader(path: &Path) -> Result<Connection, LogError> {
    let failed = failed("opening the embedded log for reading");
    let connection = connect(path).map_err(&failed)?;
    connection.execute_batch("PRAGMA query_only=ON;").map_err(&failed)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path.join("log.sqlite"))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    // Few and large pages for blobs of some kB. FULL: a commit returns after its fsync, which is
    // what an acknowledgement means here. The rest bounds memory (8 MiB) and the file left behind.
    connection.execute_batch(&format!(
        "PRAGMA page_size={PAGE_BYTES};
         PRAGMA journal_mode=WAL;
         PRAGMA synchronous=FULL;
         PRAGMA wal_autocheckpoint=1000;
         PRAGMA journal_size_limit=67108864;
         PRAGMA cache_size=-8192;
         PRAGMA temp_store=MEMORY;"
    ))?;
    Ok(connection)
}

fn create(connection: &mut Connection, partitions: u16) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO log VALUES (?1)", [partitions])?;
    for partition in 0..partitions {
        transaction.execute("INSERT INTO ranges VALUES (?1, 0, 0)", [partition])?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

pub(super) fn insert_blob(transaction: &Transaction<'_>, blob: &Blob) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO batches VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            position(blob.partition, blob.first),
            blob.records,
            blob.appended_at,
            blob.checksum.cast_signed(),
            blob.bytes
        ])
        .map(drop)
}

pub(super) fn register_group(transaction: &Transaction<'_>, group: &str) -> rusqlite::Result<()> {
    transaction.execute("INSERT OR IGNORE INTO consumer_groups VALUES (?1)", [group]).map(drop)
}

pub(super) fn forget_group(transaction: &Transaction<'_>, group: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM committed_offsets WHERE consumer_group = ?1", [group])?;
    transaction.execute("DELETE FROM consumer_groups WHERE name = ?1", [group]).map(drop)
}

pub(super) fn commit_offsets(
    transaction: &Transaction<'_>,
    group: &str,
    next: &[(PartitionId, Offset)],
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO committed_offsets VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
    )?;
    for (partition, offset) in next {
        upsert.execute(params![group, partition, offset.cast_signed()])?;
    }
    Ok(())
}

pub(super) fn committed_offset(
    connection: &Connection,
    group: &str,
    partition: PartitionId,
) -> Result<Option<Offset>, LogError> {
    connection
        .prepare_cached(
            "SELECT next_offset FROM committed_offsets WHERE consumer_group = ?1 AND partition = ?2",
        )
        .and_then(|mut select| {
            select.query_row(params![group, partition], |row| row.get(0)).optional()
        })
        .map(|offset: Option<i64>| offset.map(i64::unsigned_abs))
        .map_err(failed("reading a committed offset of the embedded log"))
}

/// Hands out the blobs of `partition` that end after `from`, in order, until `take` has enough.
pub(super) fn read_blobs(
    connection: &Connection,
    partition: PartitionId,
    from: Offset,
    mut take: impl FnMut(Blob) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    let failed = failed("reading the embedded log");
    let start = batch_at_or_before(connection, partition, from)
        .map_err(&failed)?
        .filter(|batch| batch.end > from)
        .map_or(from, |batch| batch.first);
    let mut select = connection
        .prepare_cached(
            "SELECT position, records, appended_at, checksum, bytes FROM batches
             WHERE position BETWEEN ?1 AND ?2 ORDER BY position",
        )
        .map_err(&failed)?;
    let mut rows = select
        .query(params![position(partition, start), last_position(partition)])
        .map_err(&failed)?;
    while let Some(row) = rows.next().map_err(&failed)? {
        if !take(blob(partition, row).map_err(&failed)?)? {
            break;
        }
    }
    Ok(())
}

/// The first offset of the first batch appended at or after `at`, in milliseconds since 1970.
///
/// Append times never go back within a partition, so the batch is found by halving.
pub(super) fn offset_for_time(
    connection: &Connection,
    partition: PartitionId,
    range: Watermarks,
    at: i64,
) -> Result<Offset, LogError> {
    let failed = failed("looking up a time in the embedded log");
    let (mut low, mut high) = (range.low, range.high);
    while low < high {
        let middle = low + (high - low) / 2;
        let batch = batch_at_or_before(connection, partition, middle).map_err(&failed)?;
        match batch.filter(|batch| batch.end > middle) {
            Some(batch) if batch.appended_at >= at => high = batch.first.max(range.low),
            Some(batch) => low = batch.end,
            None => return Err(no_such_batch(partition, middle)),
        }
        if high <= low {
            break;
        }
    }
    Ok(low)
}

fn no_such_batch(partition: PartitionId, offset: Offset) -> LogError {
    LogError::Permanent {
        operation: "looking up a time in the embedded log",
        source: format!("offset {offset} of partition {partition} is missing").into(),
    }
}

/// Where a stored batch lies, without its bytes.
#[derive(Clone, Copy, Debug)]
struct BatchSpan {
    first: Offset,
    end: Offset,
    appended_at: i64,
}

fn last_batch(
    connection: &Connection,
    partition: PartitionId,
) -> rusqlite::Result<Option<BatchSpan>> {
    batch_at_or_before(connection, partition, (1 << OFFSET_BITS) - 1)
}

fn batch_at_or_before(
    connection: &Connection,
    partition: PartitionId,
    offset: Offset,
) -> rusqlite::Result<Option<BatchSpan>> {
    connection
        .prepare_cached(
            "SELECT position, records, appended_at FROM batches
             WHERE position BETWEEN ?1 AND ?2 ORDER BY position DESC LIMIT 1",
        )?
        .query_row(params![position(partition, 0), position(partition, offset)], span)
        .optional()
}

fn span(row: &Row<'_>) -> rusqlite::Result<BatchSpan> {
    let first = offset_of(row.get(0)?);
    Ok(BatchSpan { first, end: first + u64::from(row.get::<_, u32>(1)?), appended_at: row.get(2)? })
}

fn blob(partition: PartitionId, row: &Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        partition,
        first: offset_of(row.get(0)?),
        records: row.get(1)?,
        appended_at: row.get(2)?,
        checksum: row.get::<_, i64>(3)?.cast_unsigned(),
        bytes: row.get(4)?,
    })
}

fn sweep_partition(
    transaction: &Transaction<'_>,
    partition: PartitionId,
    expiry: Expiry,
) -> rusqlite::Result<bool> {
    // Nothing goes while no group is known, nor what a known group has not committed yet.
    let committed: Option<i64> = transaction
        .prepare_cached(
            "SELECT min(coalesce(next_offset, 0)) FROM consumer_groups
             LEFT JOIN committed_offsets ON consumer_group = name AND partition = ?1",
        )?
        .query_row([partition], |row| row.get(0))?;
    let committed = committed.unwrap_or(0).unsigned_abs();
    let mut select = transaction.prepare_cached(
        "SELECT position, records, appended_at FROM batches
         WHERE position BETWEEN ?1 AND ?2 ORDER BY position LIMIT ?3",
    )?;
    let bounds = params![position(partition, 0), last_position(partition), SWEEP_BATCHES_MAX];
    let mut low = None;
    let mut deleted = 0_u32;
    for batch in select.query_map(bounds, span)? {
        let batch = batch?;
        let expired = expiry.regardless_of_age || batch.appended_at < expiry.before;
        if !expired || batch.end > committed {
            break;
        }
        low = Some(batch.end);
        deleted += 1;
    }
    let Some(low) = low else { return Ok(false) };
    transaction
        .prepare_cached("DELETE FROM batches WHERE position >= ?1 AND position < ?2")?
        .execute([position(partition, 0), position(partition, low)])?;
    transaction
        .prepare_cached("UPDATE ranges SET low = ?2, high = max(high, ?2) WHERE partition = ?1")?
        .execute(params![partition, low.cast_signed()])?;
    Ok(deleted == SWEEP_BATCHES_MAX)
}

fn position(partition: PartitionId, offset: Offset) -> i64 {
    debug_assert!(offset < 1 << OFFSET_BITS, "an offset has {OFFSET_BITS} bits");
    i64::from(partition) << OFFSET_BITS | offset.cast_signed()
}

fn last_position(partition: PartitionId) -> i64 {
    position(partition, (1 << OFFSET_BITS) - 1)
}

fn offset_of(position: i64) -> Offset {
    position.cast_unsigned() & ((1 << OFFSET_BITS) - 1)
}

/// Decides once whether trying again can help.
pub(super) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> LogError {
    move |error| {
        let transient = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::OutOfMemory
            )
        );
        if transient {
            LogError::Transient { operation, source: error.into() }
        } else {
            LogError::Permanent { operation, source: error.into() }
        }
    }
}
