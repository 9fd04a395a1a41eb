//! Reads ClickHouse's Native format: blocks of whole columns, several times as cheap as rows, for the
//! server and for us.

use crate::error::StoreError;
use crate::store::within;
use clickhouse::query::Query;
use std::time::Duration;

/// Rows of a block that the server is asked for: they bound the memory on both sides.
const BLOCK_ROWS: &str = "65536";
/// Most rows of a block. The query asks for fewer, and a number above it is no number of rows.
const BLOCK_ROWS_MAX: u64 = 1 << 20;
/// Longest name of a column or its type, in bytes.
const NAME_BYTES_MAX: u64 = 64;

/// A column of fixed width, as a query names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Bytes of a value.
    pub(crate) width: usize,
}

/// The answer is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not made of blocks of the columns that were asked for")]
struct Malformed;

/// Streams the blocks of `query` through `each`, which gets the bytes of the columns of some rows. Memory is
/// bounded by one block and one network buffer. `limit` is the longest silence. Returns how many rows there
/// were.
pub(crate) async fn for_each_block<const N: usize>(
    query: Query,
    operation: &'static str,
    limit: Duration,
    columns: &[Column; N],
    mut each: impl FnMut([&[u8]; N]),
) -> Result<u64, StoreError> {
    let query = query.with_setting("max_block_size", BLOCK_ROWS);
    let mut answer = query.fetch_bytes("Native").map_err(StoreError::query(operation))?;
    let (mut blocks, mut rows) = (Blocks { columns, bytes: Vec::new() }, 0);
    while let Some(piece) = within(limit, operation, answer.next()).await? {
        rows += blocks.push(&piece, &mut each).map_err(|source| StoreError::Query {
            operation,
            code: None,
            source: Box::new(source),
        })?;
    }
    if blocks.is_at_end() {
        return Ok(rows);
    }
    // The answer ends within a block. What lacks rows would let duplicates through.
    Err(StoreError::query(operation)(clickhouse::error::Error::NotEnoughData))
}

/// Bytes of an answer that do not make a whole block yet: one block at most.
#[derive(Debug)]
struct Blocks<'c, const N: usize> {
    columns: &'c [Column; N],
    bytes: Vec<u8>,
}

/// Why a block cannot be read.
#[derive(Debug)]
enum Unread {
    /// Its end is still to come.
    Begun,
    Malformed,
}

impl<const N: usize> Blocks<'_, N> {
    /// Takes the next piece of the answer, and calls `each` for every block that is whole with it. Returns
    /// how many rows there were.
    fn push(&mut self, piece: &[u8], mut each: impl FnMut([&[u8]; N])) -> Result<u64, Malformed> {
        self.bytes.extend_from_slice(piece);
        let (mut rows, mut read) = (0, 0);
        loop {
            let mut cursor = Cursor { bytes: &self.bytes[read..] };
            match block(&mut cursor, self.columns) {
                Ok((columns, count)) => {
                    each(columns);
                    rows += count;
                    read = self.bytes.len() - cursor.bytes.len();
                }
                Err(Unread::Begun) => break,
                Err(Unread::Malformed) => return Err(Malformed),
            }
        }
        self.bytes.drain(..read);
        Ok(rows)
    }

    /// Whether the answer may end here.
    fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The bytes of each column of one block, and its number of rows.
fn block<'a, const N: usize>(
    cursor: &mut Cursor<'a>,
    columns: &[Column; N],
) -> Result<([&'a [u8]; N], u64), Unread> {
    let (count, rows) = (cursor.number()?, cursor.number()?);
    if usize::try_from(count) != Ok(N) || rows > BLOCK_ROWS_MAX {
        return Err(Unread::Malformed);
    }
    let length = usize::try_from(rows).map_err(|_| Unread::Malformed)?;
    let mut data: [&[u8]; N] = [&[]; N];
    for (data, Column { name, kind, width }) in data.iter_mut().zip(columns) {
        cursor.expect(name)?;
        cursor.expect(kind)?;
        // Of a block without rows nothing but the names is sent.
        *data = cursor.take(length * width)?;
    }
    Ok((data, rows))
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unread> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Unread::Begun)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An unsigned LEB128 number.
    fn number(&mut self) -> Result<u64, Unread> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Unread::Malformed)
    }

    fn expect(&mut self, text: &str) -> Result<(), Unread> {
        let length = self.number()?;
        if length > NAME_BYTES_MAX || usize::try_from(length) != Ok(text.len()) {
            return Err(Unread::Malformed);
        }
        if self.take(text.len())? == text.as_bytes() { Ok(()) } else { Err(Unread::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column; 2] = [
        Column { name: "number", kind: "UInt16", width: 2 },
        Column { name: "hash", kind: "FixedString(16)", width: 16 },
    ];

    type Row = (u16, [u8; 16]);

    fn blocks() -> Blocks<'static, 2> {
        Blocks { columns: &COLUMNS, bytes: Vec::new() }
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }

    fn encoded(rows: &[Row]) -> Vec<u8> {
        let byte = |number: usize| u8::try_from(number).unwrap();
        let mut out = vec![2, byte(rows.len() % 128) | 0x80, byte(rows.len() / 128)];
        let columns: [Vec<u8>; 2] = [
            rows.iter().flat_map(|(number, _)| number.to_le_bytes()).collect(),
            rows.iter().flat_map(|(_, hash)| *hash).collect(),
        ];
        for (column, data) in COLUMNS.iter().zip(columns) {
            text(&mut out, column.name);
            text(&mut out, column.kind);
            out.extend(data);
        }
        out
    }

    fn rows([numbers, hashes]: [&[u8]; 2]) -> Vec<Row> {
        let numbers = numbers.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        numbers.zip(hashes.as_chunks::<16>().0.iter().copied()).collect()
    }

    fn row(number: u16) -> Row {
        (number, [number.to_le_bytes()[0]; 16])
    }

    proptest! {
        #[test]
        fn rows_are_read_however_the_answer_is_cut(
            sent in prop::collection::vec(0_u16..200, 0..6),
            cuts in prop::collection::vec(1_usize..300, 1..60),
        ) {
            let sent: Vec<Vec<_>> = sent.iter().map(|count| (0..*count).map(row).collect()).collect();
            let bytes = sent.iter().flat_map(|rows| encoded(rows)).collect::<Vec<u8>>();
            let (mut decoder, mut got, mut count, mut left) = (blocks(), Vec::new(), 0, bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, after) = left.split_at((*cut).min(left.len()));
                count += decoder.push(piece, |columns| got.extend(rows(columns))).unwrap();
                left = after;
            }
            prop_assert!(decoder.is_at_end());
            prop_assert_eq!(count, u64::try_from(got.len()).unwrap());
            prop_assert_eq!(got, sent.concat());
        }

        /// Whatever the bytes, the answer is rows, more to come, or an error.
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut got = 0;
            if let Ok(count) = blocks().push(&bytes, |columns| got += rows(columns).len()) {
                prop_assert_eq!(count, u64::try_from(got).unwrap());
            }
        }
    }

    #[test]
    fn an_answer_that_ends_within_a_block_is_not_at_its_end() {
        let bytes = encoded(&[row(1), row(2)]);
        for end in 1..bytes.len() {
            let mut decoder = blocks();
            assert_eq!(decoder.push(&bytes[..end], |_| ()), Ok(0));
            assert!(!decoder.is_at_end(), "{end}");
        }
    }

    #[test]
    fn other_columns_other_types_and_error_texts_are_refused() {
        let whole = encoded(&[row(1)]);
        for (from, to) in [("number", "numbeX"), ("FixedString(16)", "FixedString(17)")] {
            let mut bytes = whole.clone();
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            assert_eq!(blocks().push(&bytes, |_| ()), Err(Malformed), "{to}");
        }
        let mut decoder = blocks();
        let text = b"Code: 241. DB::Exception: Memory limit exceeded";
        assert_eq!(decoder.push(&[whole.as_slice(), text].concat(), |_| ()), Err(Malformed));
    }
}
