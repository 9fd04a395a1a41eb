//! Reads a request's body: bounded in bytes and in time, decompressed, as UTF-8.

use crate::byte_budget::{BudgetExhausted, ByteBudget, Reservation};
use crate::metrics;
use crate::problem::{Problem, ProblemCode};
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::http::HeaderMap;
use axum::http::header;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

mod decompress;

use decompress::{Encoding, decompress};

/// Room taken from the budget ahead of each read, in bytes: what one read of the connection may bring.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Largest first allocation for a body of known length, in bytes; more is allocated as it arrives.
const FIRST_ALLOCATION_BYTES_MAX: usize = 1024 * 1024;
/// Longest time that the rest of a refused body is read and dropped, so that the client sees the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Largest body after decompression, in bytes.
    pub(crate) bytes_max: usize,
    /// Largest compressed body, in bytes.
    pub(crate) compressed_bytes_max: usize,
    /// Longest time between two pieces of the body.
    pub(crate) idle_timeout: Duration,
    /// Longest time for the whole body.
    pub(crate) timeout: Duration,
    /// For the texts of refusals: most events of a request.
    pub(crate) events_max: usize,
}

/// A body, and the room in memory that it and what is made of it may take.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Reservation,
}

/// The body as text.
pub(crate) fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let detail = format!(
            "the body is not UTF-8 from byte {} on; nothing of it was stored",
            error.valid_up_to()
        );
        Problem::with_detail(ProblemCode::InvalidUtf8, detail)
    })
}

/// Reads and decompresses `body`.
///
/// Room is taken from `budget` before the bytes are read; without room the request is refused at once.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: &mut Body,
    limits: &BodyLimits,
    budget: &Arc<ByteBudget>,
) -> Result<ReadBody, Problem> {
    let encoding = Encoding::of(headers)?;
    let sent_max =
        if encoding == Encoding::Identity { limits.bytes_max } else { limits.compressed_bytes_max };
    let mut reservation = budget.reserve();
    let sent = read_sent(body, sent_max, limits, (budget, &mut reservation)).await?;
    let bytes = match encoding {
        Encoding::Identity => sent,
        _ => decompress(encoding, &sent, limits, &mut reservation)?,
    };
    metrics::body_read(bytes.len());
    Ok(ReadBody { bytes, reservation })
}

/// Reads and drops the rest of a refused body: closing the connection on unread bytes would cut off the answer.
///
/// At most what a body may hold, and not when the client waits to be asked for the body.
pub(crate) async fn discard(headers: &HeaderMap, body: &mut Body, limits: &BodyLimits) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let deadline = Instant::now() + DISCARD_TIMEOUT;
    let mut left = limits.bytes_max.saturating_mul(2);
    while !body.is_end_stream() {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else { return };
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

/// The body as sent, of at most `bytes_max` bytes.
async fn read_sent(
    body: &mut Body,
    bytes_max: usize,
    limits: &BodyLimits,
    (budget, reservation): (&ByteBudget, &mut Reservation),
) -> Result<Bytes, Problem> {
    let hint = body.size_hint();
    let announced = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large(limits));
    }
    if !budget.has_room_for(announced) {
        return Err(overloaded(BudgetExhausted));
    }
    let deadline = Instant::now() + limits.timeout;
    let mut first = Bytes::new();
    let mut collected = BytesMut::new();
    loop {
        let read = first.len() + collected.len();
        reservation.grow_to(bytes_max.min(read + READ_AHEAD_BYTES)).map_err(overloaded)?;
        let next =
            timeout_at(deadline.min(Instant::now() + limits.idle_timeout), body.frame()).await;
        let Some(frame) = next.map_err(|_| Problem::new(ProblemCode::BodyTimeout))? else { break };
        // The connection broke or the framing is wrong; most likely nobody reads the answer.
        let frame = frame.map_err(|_| Problem::new(ProblemCode::IncompleteBody))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - read {
            return Err(too_large(limits));
        }
        if read == 0 {
            // A body that came in one piece is used where it is.
            first = data;
            continue;
        }
        if collected.is_empty() {
            reservation.grow_to(read + data.len()).map_err(overloaded)?;
            collected.reserve(
                announced
                    .clamp(read + data.len(), FIRST_ALLOCATION_BYTES_MAX.max(read + data.len())),
            );
            collected.extend_from_slice(&first);
            first = Bytes::new();
        }
        reservation.grow_to(read + data.len()).map_err(overloaded)?;
        collected.extend_from_slice(&data);
    }
    Ok(if collected.is_empty() { first } else { collected.freeze() })
}

pub(crate) fn overloaded(_: BudgetExhausted) -> Problem {
    Problem::new(ProblemCode::Overloaded)
}

fn too_large(limits: &BodyLimits) -> Problem {
    let detail = format!(
        "the body has more than {} bytes ({} when compressed); split the events over several requests",
        limits.bytes_max, limits.compressed_bytes_max
    );
    Problem::with_detail(ProblemCode::BodyTooLarge, detail).members(limit_members(limits))
}

/// The limits on a request as members of a refusal.
pub(crate) fn limit_members(limits: &BodyLimits) -> String {
    format!(
        "\"limit_bytes\":{},\"limit_compressed_bytes\":{},\"limit_events\":{}",
        limits.bytes_max, limits.compressed_bytes_max, limits.events_max
    )
}

#[cfg(test)]
mod tests;
