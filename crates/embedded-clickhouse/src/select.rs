//! Runs a statement without data of its own and streams its result.

use crate::cancel::Worker;
use crate::config::PEER_SILENCE;
use crate::engine::{Engine, Wanted};
use crate::exception::{Exception, QUERY_WAS_CANCELLED};
use crate::ffi::{Chunk, Connection, StatementClass};
use crate::guard;
use crate::sql::OutputFormat;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Formats whose chunks can be put after each other, the second one once the repeated header is cut off.
/// A result in any other format is held in memory as a whole.
const STREAMED: [&str; 9] = [
    "RowBinary",
    WITH_HEADER,
    "Native",
    "JSONEachRow",
    "TabSeparated",
    "TSV",
    "TabSeparatedRaw",
    "TSVRaw",
    "CSV",
];
const WITH_HEADER: &str = "RowBinaryWithNamesAndTypes";

/// Pieces of a result that wait for the client.
pub const PARTS_MAX: usize = 4;

/// A statement to run.
#[derive(Debug)]
pub struct Select {
    pub engine: Arc<Engine>,
    pub wanted: Wanted,
    pub sql: Bytes,
    /// Whether the statement begins like a SELECT.
    pub select: bool,
    pub named_format: OutputFormat,
    pub default_format: String,
    pub parameters: Vec<(String, String)>,
}

/// A piece of the result. The first one is sent when the statement can hardly fail any more.
#[derive(Debug)]
pub struct Part {
    pub bytes: Bytes,
    pub summary: Summary,
}

pub type Parts = mpsc::Sender<Result<Part, Exception>>;

impl Select {
    /// The format of the result.
    pub fn format(&self) -> &str {
        match &self.named_format {
            OutputFormat::Named(format) => format,
            OutputFormat::Default | OutputFormat::Unclear => &self.default_format,
        }
    }

    /// Runs the statement to its end, on a thread that may block. The outcome goes to `parts`.
    pub fn run(&self, worker: &Worker, parts: &Parts) {
        if let Err(error) = self.execute(worker, parts) {
            worker.settle();
            // The client may be gone; there is nobody else to tell.
            drop(parts.blocking_send(Err(error)));
        }
    }

    fn execute(&self, worker: &Worker, parts: &Parts) -> Result<(), Exception> {
        let began = Instant::now();
        let mut session = self.engine.session(&self.wanted)?;
        let class = guard::admit(&mut session, &self.wanted, &self.sql)?;
        if worker.is_unwanted() {
            return Err(gone());
        }
        if class == StatementClass::Mutating {
            // As on a server: half of an ALTER helps nobody.
            worker.settle();
        }
        let streamed = class == StatementClass::ReadOnly
            && self.select
            && self.named_format != OutputFormat::Unclear
            && STREAMED.contains(&self.format());
        if streamed {
            return self.stream(&mut session, worker, parts, began);
        }
        let result = session
            .query(&self.sql, self.format(), &self.parameters)
            .map_err(|error| Exception::from_engine(&error))?;
        let part = Part {
            bytes: Bytes::copy_from_slice(result.bytes()),
            summary: Summary::of(&result).since(began),
        };
        send(parts, part)
    }

    fn stream(
        &self,
        session: &mut Connection,
        worker: &Worker,
        parts: &Parts,
        began: Instant,
    ) -> Result<(), Exception> {
        let from_engine = |error: String| Exception::from_engine(&error);
        let mut stream =
            session.select(&self.sql, self.format(), &self.parameters).map_err(from_engine)?;
        let mut header = None;
        while let Some(chunk) = stream.fetch().map_err(from_engine)? {
            let summary = Summary::of(&chunk).since(began);
            let bytes = self.without_repeated_header(&chunk, &mut header)?;
            if worker.is_unwanted() || send(parts, Part { bytes, summary }).is_err() {
                stream.cancel();
                return Err(gone());
            }
        }
        if header.is_none() {
            // An empty result has an answer too.
            return send(
                parts,
                Part { bytes: Bytes::new(), summary: Summary::default().since(began) },
            );
        }
        Ok(())
    }

    /// The bytes of a chunk to pass on. `header` is the length of the header that each chunk begins with.
    fn without_repeated_header(
        &self,
        chunk: &Chunk,
        header: &mut Option<usize>,
    ) -> Result<Bytes, Exception> {
        let bytes = chunk.bytes();
        if let Some(length) = *header {
            return bytes
                .get(length..)
                .map(Bytes::copy_from_slice)
                .ok_or_else(|| malformed(self.format()));
        }
        let length = if self.format() == WITH_HEADER {
            header_length(bytes).ok_or_else(|| malformed(WITH_HEADER))?
        } else {
            0
        };
        *header = Some(length);
        Ok(Bytes::copy_from_slice(bytes))
    }
}

fn malformed(format: &str) -> Exception {
    Exception::from_engine(&format!("a chunk of the result is not in the format {format}"))
}

fn gone() -> Exception {
    Exception::new(QUERY_WAS_CANCELLED, "the client has gone. (QUERY_WAS_CANCELLED)")
}

/// Hands a part to the client, who may be slow but not silent.
fn send(parts: &Parts, part: Part) -> Result<(), Exception> {
    let sent = Handle::current().block_on(tokio::time::timeout(PEER_SILENCE, parts.send(Ok(part))));
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(gone()),
    }
}

/// The length of the header of RowBinaryWithNamesAndTypes: a count, as many names and as many types.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let columns = var_uint(bytes, &mut at)?;
    for _ in 0..columns.checked_mul(2)? {
        let length = var_uint(bytes, &mut at)?;
        at = at.checked_add(length).filter(|&at| at <= bytes.len())?;
    }
    Some(at)
}

fn var_uint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What a statement read and wrote so far, as a server reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    read: (u64, u64),
    written: (u64, u64),
    result: (u64, usize),
    elapsed_ns: u128,
}

impl Summary {
    pub fn of(chunk: &Chunk) -> Self {
        let written = chunk.written();
        let result = (chunk.rows().max(written.0), chunk.bytes().len());
        Self { read: chunk.read(), written, result, elapsed_ns: 0 }
    }

    /// With the time that has passed since `began`.
    pub fn since(self, began: Instant) -> Self {
        Self { elapsed_ns: began.elapsed().as_nanos(), ..self }
    }

    /// The value of `X-ClickHouse-Summary`: numbers as strings, as the server writes them.
    pub fn header(&self) -> String {
        let Self { read, written, result, elapsed_ns } = self;
        format!(
            r#"{{"read_rows":"{}","read_bytes":"{}","written_rows":"{}","written_bytes":"{}","total_rows_to_read":"0","result_rows":"{}","result_bytes":"{}","elapsed_ns":"{elapsed_ns}"}}"#,
            read.0, read.1, written.0, written.1, result.0, result.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_measured_or_refused() {
        let header = b"\x02\x01a\x01s\x06UInt64\x06String\x01rest";
        assert_eq!(header_length(header), Some(19));
        for end in 0..19 {
            assert_eq!(header_length(&header[..end]), None, "{end}");
        }
        assert_eq!(header_length(&[0xff; 20]), None);
        assert_eq!(header_length(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1]), None);
    }
}
