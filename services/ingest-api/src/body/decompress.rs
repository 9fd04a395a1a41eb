//! Decompression with a hard cap on what comes out, so that a small bomb cannot fill the memory.

use super::{BodyLimits, overloaded, too_large};
use crate::byte_budget::Reservation;
use crate::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use std::io::{self, Read};

/// Bytes that are decompressed at a time, after room for them was taken from the budget.
const STEP_BYTES: usize = 64 * 1024;
/// Largest window of a zstd stream, as a power of two: 8 MiB, what RFC 9659 sets for HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// What `Content-Encoding` names; one encoding, or none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported = || Problem::new(ProblemCode::UnsupportedContentEncoding);
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(Self::Identity) };
        if values.next().is_some() {
            return Err(unsupported());
        }
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(unsupported()),
        }
    }
}

/// The content of `sent`, refused as soon as it exceeds the limit or the budget.
pub(super) fn decompress(
    encoding: Encoding,
    sent: &[u8],
    limits: &BodyLimits,
    reservation: &mut Reservation,
) -> Result<Bytes, Problem> {
    match encoding {
        Encoding::Identity => Ok(Bytes::copy_from_slice(sent)),
        Encoding::Gzip => {
            drain(flate2::bufread::MultiGzDecoder::new(sent), sent.len(), limits, reservation)
        }
        Encoding::Zstd => {
            drain(zstd_decoder(sent).map_err(malformed)?, sent.len(), limits, reservation)
        }
    }
}

fn zstd_decoder(sent: &[u8]) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(sent)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

fn drain(
    mut decoder: impl Read,
    sent_bytes: usize,
    limits: &BodyLimits,
    reservation: &mut Reservation,
) -> Result<Bytes, Problem> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        // One byte more than allowed shows that the limit is exceeded.
        let step = STEP_BYTES.min(limits.bytes_max + 1 - start);
        reservation.grow_to(sent_bytes + start + step).map_err(overloaded)?;
        content.resize(start + step, 0);
        let read = read_some(&mut decoder, &mut content[start..]).map_err(malformed)?;
        content.truncate(start + read);
        if content.len() > limits.bytes_max {
            return Err(too_large(limits));
        }
        if read == 0 {
            return Ok(Bytes::from(content));
        }
    }
}

fn read_some(decoder: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match decoder.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn malformed(_: io::Error) -> Problem {
    Problem::new(ProblemCode::MalformedEncoding)
}
