//! Reads ClickHouse's RowBinary: rows of any columns, however the answer is cut into pieces.

use crate::error::StoreError;
use crate::store::within;
use chrono::{DateTime, Utc};
use clickhouse::query::Query;
use std::time::Duration;

/// Longest row that is believed, in bytes. A dead letter has 1.1 MiB at most.
const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is left of a row. Each `take` gives `None` when the row goes on in the next piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowReader<'a> {
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    fn take_array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.rest.split_first_chunk::<LENGTH>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn take_u16(&mut self) -> Option<u16> {
        self.take_array().map(u16::from_le_bytes)
    }

    pub(crate) fn take_u64(&mut self) -> Option<u64> {
        self.take_array().map(u64::from_le_bytes)
    }

    pub(crate) fn take_hash(&mut self) -> Option<[u8; 16]> {
        self.take_array()
    }

    /// `DateTime64(3)`, in milliseconds since 1970.
    pub(crate) fn take_millis(&mut self) -> Option<i64> {
        self.take_array().map(i64::from_le_bytes)
    }

    /// `DateTime64(3)`; what chrono cannot hold, which no column of ours has, is the start of 1970.
    pub(crate) fn take_instant(&mut self) -> Option<DateTime<Utc>> {
        let millis = self.take_millis()?;
        Some(DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH))
    }

    /// `Nullable(Decimal(38, 12))`, in units.
    pub(crate) fn take_units(&mut self) -> Option<Option<i128>> {
        let [null] = self.take_array()?;
        if null != 0 {
            return Some(None);
        }
        self.take_array().map(i128::from_le_bytes).map(Some)
    }

    pub(crate) fn take_bool(&mut self) -> Option<bool> {
        self.take_array().map(|[byte]| byte != 0)
    }

    /// The LEB128 number before the bytes of a `String` and before the values of an `Array`.
    pub(crate) fn take_length(&mut self) -> Option<usize> {
        let mut length = 0_usize;
        for shift in (0..63).step_by(7) {
            let [byte] = self.take_array()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }

    pub(crate) fn take_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.take_length()?;
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// A `String` that we wrote ourselves, hence UTF-8; what is not is replaced, and found by its hash.
    pub(crate) fn take_text(&mut self) -> Option<std::borrow::Cow<'a, str>> {
        self.take_bytes().map(String::from_utf8_lossy)
    }
}

/// Streams the rows of `query` through `row`, which gives `None` for a row that is not whole yet. Memory
/// is bounded by one row and one network buffer. Returns how many there were.
pub(crate) async fn for_each_row(
    query: Query,
    operation: &'static str,
    limit: Duration,
    mut row: impl FnMut(&mut RowReader<'_>) -> Option<()>,
) -> Result<u64, StoreError> {
    let failed = StoreError::query(operation);
    let mut answer = query.fetch_bytes("RowBinary").map_err(failed)?;
    let (mut rows, mut begun) = (0, Vec::new());
    while let Some(piece) = within(limit, operation, answer.next()).await? {
        begun.extend_from_slice(&piece);
        let (taken, whole) = take_rows(&begun, &mut row);
        begun.drain(..taken);
        rows += whole;
        if begun.len() > ROW_BYTES_MAX {
            break;
        }
    }
    if begun.is_empty() {
        return Ok(rows);
    }
    // The answer ends within a row, or is no RowBinary of these columns.
    Err(StoreError::query(operation)(clickhouse::error::Error::NotEnoughData))
}

/// Bytes and number of the whole rows that `bytes` begins with.
fn take_rows(bytes: &[u8], row: &mut impl FnMut(&mut RowReader<'_>) -> Option<()>) -> (usize, u64) {
    let (mut reader, mut taken, mut rows) = (RowReader { rest: bytes }, 0, 0);
    while !reader.rest.is_empty() && row(&mut reader).is_some() {
        taken = bytes.len() - reader.rest.len();
        rows += 1;
    }
    (taken, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_binary::{put_bytes, put_instant, put_quantity, put_u16, put_u64};
    use metering::Quantity;
    use proptest::prelude::*;

    type Row = (u16, Vec<u8>, Option<i128>, i64, u64);

    fn put(out: &mut Vec<u8>, (number, text, units, millis, hash): &Row) {
        put_u16(out, *number);
        put_bytes(out, text);
        put_quantity(out, units.and_then(Quantity::from_units));
        put_instant(out, DateTime::from_timestamp_millis(*millis).unwrap());
        put_u64(out, *hash);
    }

    fn take(reader: &mut RowReader<'_>) -> Option<Row> {
        Some((
            reader.take_u16()?,
            reader.take_bytes()?.to_vec(),
            reader.take_units()?,
            reader.take_millis()?,
            reader.take_u64()?,
        ))
    }

    proptest! {
        #[test]
        fn rows_are_read_however_the_answer_is_cut(
            sent in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..300), prop::option::of(-1000_i128..1000), 0_i64..10_000_000_000_000, any::<u64>()), 0..12),
            cuts in prop::collection::vec(1_usize..400, 1..20),
        ) {
            let mut bytes = Vec::new();
            sent.iter().for_each(|row| put(&mut bytes, row));
            let (mut begun, mut got, mut left) = (Vec::new(), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, after) = left.split_at((*cut).min(left.len()));
                begun.extend_from_slice(piece);
                let (taken, _) = take_rows(&begun, &mut |reader| take(reader).map(|row| got.push(row)));
                begun.drain(..taken);
                left = after;
            }
            prop_assert!(begun.is_empty());
            prop_assert_eq!(got, sent);
        }
    }
}
