//! Reads ClickHouse's Native format: blocks of whole columns, four times as cheap for the server as rows.

use super::IdentityRow;

/// Most rows of a block. The query asks for fewer, and a number above it is no number of rows.
const BLOCK_ROWS_MAX: u64 = 1 << 20;
/// Longest name of a column or its type, in bytes.
const NAME_BYTES_MAX: u64 = 64;

/// Name, type and bytes of the columns of `select_identities.sql`, in their order.
const COLUMNS: [(&str, &str, usize); 6] = [
    ("kafka_partition", "UInt16", 2),
    ("topic_epoch", "UInt16", 2),
    ("kafka_offset", "UInt64", 8),
    ("identity_hash", "FixedString(16)", 16),
    ("payload_fingerprint", "UInt64", 8),
    ("accepted_hour", "UInt32", 4),
];

/// The answer is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not made of blocks of the identities' columns")]
pub(super) struct Malformed;

/// Bytes of an answer that do not make a whole block yet: one block at most.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
}

/// Why a block cannot be read.
#[derive(Debug)]
enum Unread {
    /// Its end is still to come.
    Begun,
    Malformed,
}

impl Blocks {
    /// Takes the next piece of the answer, and calls `each` for the rows of every block that is whole
    /// with it. Returns how many there were.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(IdentityRow),
    ) -> Result<u64, Malformed> {
        self.bytes.extend_from_slice(piece);
        let (mut rows, mut read) = (0, 0);
        loop {
            let mut cursor = Cursor { bytes: &self.bytes[read..] };
            match block(&mut cursor) {
                Ok(block) => {
                    rows += block.for_each(&mut each);
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
    pub(super) fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The columns of one block, all of the same number of rows.
struct Block<'a> {
    partitions: &'a [[u8; 2]],
    epochs: &'a [[u8; 2]],
    offsets: &'a [[u8; 8]],
    hashes: &'a [[u8; 16]],
    fingerprints: &'a [[u8; 8]],
    hours: &'a [[u8; 4]],
}

impl Block<'_> {
    fn for_each(&self, each: &mut impl FnMut(IdentityRow)) -> u64 {
        let mut rows = 0;
        let numbers = self.partitions.iter().zip(self.epochs).zip(self.offsets);
        let rest = self.hashes.iter().zip(self.fingerprints).zip(self.hours);
        for (((partition, epoch), offset), ((hash, fingerprint), hour)) in numbers.zip(rest) {
            each(IdentityRow {
                partition: u16::from_le_bytes(*partition),
                epoch: u16::from_le_bytes(*epoch),
                offset: u64::from_le_bytes(*offset),
                hash: *hash,
                fingerprint: u64::from_le_bytes(*fingerprint),
                accepted_hour: u32::from_le_bytes(*hour),
            });
            rows += 1;
        }
        rows
    }
}

fn block<'a>(cursor: &mut Cursor<'a>) -> Result<Block<'a>, Unread> {
    let (columns, rows) = (cursor.number()?, cursor.number()?);
    if usize::try_from(columns) != Ok(COLUMNS.len()) || rows > BLOCK_ROWS_MAX {
        return Err(Unread::Malformed);
    }
    let rows = usize::try_from(rows).map_err(|_| Unread::Malformed)?;
    let mut data: [&[u8]; COLUMNS.len()] = [&[]; COLUMNS.len()];
    for (data, (name, kind, width)) in data.iter_mut().zip(COLUMNS) {
        cursor.expect(name)?;
        cursor.expect(kind)?;
        // Of a block without rows nothing but the names is sent.
        *data = cursor.take(rows * width)?;
    }
    Ok(Block {
        partitions: data[0].as_chunks().0,
        epochs: data[1].as_chunks().0,
        offsets: data[2].as_chunks().0,
        hashes: data[3].as_chunks().0,
        fingerprints: data[4].as_chunks().0,
        hours: data[5].as_chunks().0,
    })
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

    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }

    fn encoded(rows: &[IdentityRow]) -> Vec<u8> {
        let mut out = vec![6];
        let byte = |number: usize| u8::try_from(number).unwrap();
        out.extend([byte(rows.len() % 128) | 0x80, byte(rows.len() / 128)]);
        let columns: [Vec<u8>; 6] = [
            rows.iter().flat_map(|row| row.partition.to_le_bytes()).collect(),
            rows.iter().flat_map(|row| row.epoch.to_le_bytes()).collect(),
            rows.iter().flat_map(|row| row.offset.to_le_bytes()).collect(),
            rows.iter().flat_map(|row| row.hash).collect(),
            rows.iter().flat_map(|row| row.fingerprint.to_le_bytes()).collect(),
            rows.iter().flat_map(|row| row.accepted_hour.to_le_bytes()).collect(),
        ];
        for ((name, kind, _), data) in COLUMNS.iter().zip(columns) {
            text(&mut out, name);
            text(&mut out, kind);
            out.extend(data);
        }
        out
    }

    fn row(number: u16) -> IdentityRow {
        IdentityRow {
            partition: number % 12,
            epoch: number,
            offset: u64::from(number) << 40,
            hash: [number.to_le_bytes()[0]; 16],
            fingerprint: !u64::from(number),
            accepted_hour: u32::from(number) << 8,
        }
    }

    proptest! {
        #[test]
        fn rows_are_read_however_the_answer_is_cut(
            blocks in prop::collection::vec(0_u16..200, 0..6),
            cuts in prop::collection::vec(1_usize..300, 1..60),
        ) {
            let sent: Vec<Vec<_>> = blocks.iter().map(|count| (0..*count).map(row).collect()).collect();
            let bytes = sent.iter().flat_map(|rows| encoded(rows)).collect::<Vec<u8>>();
            let (mut decoder, mut got, mut rows, mut left) = (Blocks::default(), Vec::new(), 0, bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, after) = left.split_at((*cut).min(left.len()));
                rows += decoder.push(piece, |row| got.push(row)).unwrap();
                left = after;
            }
            prop_assert!(decoder.is_at_end());
            prop_assert_eq!(rows, u64::try_from(got.len()).unwrap());
            prop_assert_eq!(got, sent.concat());
        }

        /// Whatever the bytes, the answer is rows, more to come, or an error.
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut rows = 0;
            if let Ok(read) = Blocks::default().push(&bytes, |_| rows += 1) {
                prop_assert_eq!(read, rows);
            }
        }
    }

    #[test]
    fn an_answer_that_ends_within_a_block_is_not_at_its_end() {
        let bytes = encoded(&[row(1), row(2)]);
        for end in 1..bytes.len() {
            let mut decoder = Blocks::default();
            assert_eq!(decoder.push(&bytes[..end], |_| ()), Ok(0));
            assert!(!decoder.is_at_end(), "{end}");
        }
    }

    #[test]
    fn other_columns_other_types_and_error_texts_are_refused() {
        let whole = encoded(&[row(1)]);
        for (from, to) in [("kafka_offset", "kafka_offseX"), ("FixedString(16)", "FixedString(17)")]
        {
            let mut bytes = whole.clone();
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            assert_eq!(Blocks::default().push(&bytes, |_| ()), Err(Malformed), "{to}");
        }
        let mut decoder = Blocks::default();
        let text = b"Code: 241. DB::Exception: Memory limit exceeded";
        assert_eq!(decoder.push(&[whole.as_slice(), text].concat(), |_| ()), Err(Malformed));
    }
}
