//! ClickHouse's native compressed blocks, and the Content-Encoding of a body.

use crate::config::{BUFFERED_BYTES_MAX, INSERT_BYTES_MAX};
use crate::exception::{
    CANNOT_DECOMPRESS, CHECKSUM_DOESNT_MATCH, Exception, TOO_LARGE, UNKNOWN_COMPRESSION_METHOD,
};
use bytes::Bytes;
use std::io::Read;

const CHECKSUM_BYTES: usize = 16;
/// Method, compressed size with this header, size of the data.
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;

/// Takes a stream of compressed blocks apart, or passes a stream through; in both cases it is bounded.
#[derive(Debug)]
pub struct Decoder {
    compressed: bool,
    pending: Vec<u8>,
    decoded: usize,
}

impl Decoder {
    pub fn new(compressed: bool) -> Self {
        Self { compressed, pending: Vec::new(), decoded: 0 }
    }

    /// Takes the next piece, which may end anywhere, and gives what it completes to `sink`.
    pub fn push(
        &mut self,
        piece: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), Exception>,
    ) -> Result<(), Exception> {
        if !self.compressed {
            return self.deliver(piece, &mut sink);
        }
        self.pending.extend_from_slice(piece);
        let mut pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some((block, after)) = split_block(rest)? {
            match block.method {
                METHOD_NONE => self.deliver(block.data, &mut sink)?,
                METHOD_LZ4 => self.deliver(&unpack(&block)?, &mut sink)?,
                method => {
                    let message = format!(
                        "compression method {method:#04x} is not supported; use lz4 or none"
                    );
                    return Err(Exception::new(UNKNOWN_COMPRESSION_METHOD, message));
                }
            }
            rest = after;
        }
        let consumed = pending.len() - rest.len();
        pending.drain(..consumed);
        self.pending = pending;
        Ok(())
    }

    /// Checks that the stream did not end within a block.
    pub fn finish(self) -> Result<(), Exception> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(Exception::new(CANNOT_DECOMPRESS, "the body ends within a compressed block"))
    }

    fn deliver(
        &mut self,
        data: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), Exception>,
    ) -> Result<(), Exception> {
        self.decoded += data.len();
        if self.decoded > INSERT_BYTES_MAX {
            return Err(too_large(INSERT_BYTES_MAX));
        }
        sink(data)
    }
}

/// A body that is larger than `limit` bytes.
pub fn too_large(limit: usize) -> Exception {
    Exception::new(TOO_LARGE, format_args!("the body is larger than {limit} bytes"))
}

struct Block<'a> {
    method: u8,
    size: usize,
    data: &'a [u8],
}

/// The first block of `bytes` and what follows it, if it is complete.
fn split_block(bytes: &[u8]) -> Result<Option<(Block<'_>, &[u8])>, Exception> {
    let Some((checksum, framed)) = bytes.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Ok(None);
    };
    let Some(&[method, c0, c1, c2, c3, u0, u1, u2, u3]) = framed.first_chunk::<HEADER_BYTES>()
    else {
        return Ok(None);
    };
    let sizes =
        [[c0, c1, c2, c3], [u0, u1, u2, u3]].map(|le| usize::try_from(u32::from_le_bytes(le)));
    let [Ok(compressed), Ok(size)] = sizes else { return Err(corrupted()) };
    if compressed < HEADER_BYTES {
        return Err(corrupted());
    }
    if compressed.max(size) > BUFFERED_BYTES_MAX {
        let message = format_args!(
            "a compressed block is larger than {BUFFERED_BYTES_MAX} bytes; send several"
        );
        return Err(Exception::new(TOO_LARGE, message));
    }
    let Some((framed, after)) = framed.split_at_checked(compressed) else { return Ok(None) };
    // The two halves of the hash are stored in the other order.
    if cityhash_rs::cityhash_102_128(framed).rotate_right(64).to_le_bytes() != *checksum {
        return Err(Exception::new(
            CHECKSUM_DOESNT_MATCH,
            "Checksum doesn't match: corrupted data. (CHECKSUM_DOESNT_MATCH)",
        ));
    }
    Ok(Some((Block { method, size, data: &framed[HEADER_BYTES..] }, after)))
}

fn unpack(block: &Block<'_>) -> Result<Vec<u8>, Exception> {
    match lz4_flex::block::decompress(block.data, block.size) {
        Ok(data) if data.len() == block.size => Ok(data),
        _ => Err(corrupted()),
    }
}

fn corrupted() -> Exception {
    Exception::new(CANNOT_DECOMPRESS, "a compressed block is corrupted. (CANNOT_DECOMPRESS)")
}

/// `data` as one block of lz4, for a client that asked for `compress=1`.
///
/// # Panics
/// When `data` has 4 GiB or more.
pub fn encode_block(data: &[u8]) -> Vec<u8> {
    let packed = lz4_flex::block::compress(data);
    let size = |n: usize| u32::try_from(n).expect("a result chunk is below 4 GiB").to_le_bytes();
    let mut framed = Vec::with_capacity(HEADER_BYTES + packed.len());
    framed.push(METHOD_LZ4);
    framed.extend_from_slice(&size(HEADER_BYTES + packed.len()));
    framed.extend_from_slice(&size(data.len()));
    framed.extend_from_slice(&packed);
    let checksum = cityhash_rs::cityhash_102_128(&framed).rotate_right(64).to_le_bytes();
    [checksum.as_slice(), &framed].concat()
}

/// Undoes the Content-Encoding of a body. An encoding that is not known is refused: its bytes would be taken for SQL.
pub fn decode_content(encoding: Option<&str>, body: Bytes) -> Result<Bytes, Exception> {
    match encoding.map(str::trim) {
        None | Some("" | "identity") => Ok(body),
        Some("lz4") => {
            let mut decoded = Vec::new();
            let limit = u64::try_from(INSERT_BYTES_MAX).expect("a limit fits into 64 bits");
            lz4_flex::frame::FrameDecoder::new(&body[..])
                .take(limit + 1)
                .read_to_end(&mut decoded)
                .map_err(|_| corrupted())?;
            if decoded.len() > INSERT_BYTES_MAX {
                return Err(too_large(INSERT_BYTES_MAX));
            }
            Ok(decoded.into())
        }
        Some(other) => {
            let message = format!("Content-Encoding {other} is not supported; use lz4 or none");
            Err(Exception::new(UNKNOWN_COMPRESSION_METHOD, message))
        }
    }
}

#[cfg(test)]
mod tests;
