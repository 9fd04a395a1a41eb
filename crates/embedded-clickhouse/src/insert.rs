//! Runs an INSERT whose data arrives in pieces: all of it or, below one block, nothing.

use crate::config::{INSERT_BYTES_MAX, PEER_SILENCE};
use crate::engine::{Engine, Wanted};
use crate::exception::{Exception, NETWORK_ERROR, QUERY_NOT_ALLOWED};
use crate::ffi::StatementClass;
use crate::framing::{Decoder, too_large};
use crate::guard;
use crate::request::next_piece;
use crate::select::Summary;
use axum::body::BodyDataStream;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces of a body that wait for the engine.
const PIECES_MAX: usize = 8;

/// An INSERT, without its data.
#[derive(Debug)]
pub struct Insert {
    pub engine: Arc<Engine>,
    pub wanted: Wanted,
    /// The statement up to its FORMAT clause.
    pub sql: Vec<u8>,
    pub format: String,
    pub parameters: Vec<(String, String)>,
    /// Data comes in native compressed blocks.
    pub compressed: bool,
}

/// A piece of the data. Without an `End` the client has gone and nothing is kept.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

/// Runs `insert` with `inline` data, which was part of the statement's text, and the data of `body`.
/// `place` is held until the engine is done, even when the client is not there any more.
pub async fn run<P: Send + 'static>(
    insert: Insert,
    inline: Bytes,
    mut body: Option<BodyDataStream>,
    place: P,
) -> Result<Summary, Exception> {
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    let worker = tokio::task::spawn_blocking(move || {
        let outcome = insert.execute(received);
        drop(place);
        outcome
    });
    let sent = send(inline, body.as_mut(), pieces).await;
    let outcome = worker.await.unwrap_or_else(|error| {
        Err(Exception::from_engine(&format!("the insert failed: {error}")))
    });
    if outcome.is_err()
        && let Some(body) = &mut body
    {
        drain(body).await;
    }
    // What is wrong with the body explains the insert's failure better than the failure itself.
    sent.and(outcome)
}

async fn send(
    inline: Bytes,
    body: Option<&mut BodyDataStream>,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Exception> {
    // A closed channel means that the worker has failed; it says why.
    if !inline.is_empty() && pieces.send(Piece::Data(inline)).await.is_err() {
        return Ok(());
    }
    if let Some(body) = body {
        let mut total = 0_usize;
        while let Some(piece) = next_piece(body).await? {
            total += piece.len();
            if total > INSERT_BYTES_MAX {
                return Err(too_large(INSERT_BYTES_MAX));
            }
            if pieces.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    // A worker that has failed meanwhile says why.
    drop(pieces.send(Piece::End).await);
    Ok(())
}

/// Reads on for a while, because most clients read an answer only after they have sent all.
async fn drain(body: &mut BodyDataStream) {
    let rest = async {
        let mut total = 0_usize;
        while let Ok(Some(piece)) = next_piece(body).await {
            total += piece.len();
            if total > INSERT_BYTES_MAX {
                return;
            }
        }
    };
    // A client that is slow loses the connection instead.
    drop(tokio::time::timeout(PEER_SILENCE / 4, rest).await);
}

impl Insert {
    fn execute(&self, mut pieces: mpsc::Receiver<Piece>) -> Result<Summary, Exception> {
        let mut session = self.engine.session(&self.wanted)?;
        let whole = [&self.sql[..], b" FORMAT ", self.format.as_bytes()].concat();
        if guard::admit(&mut session, &self.wanted, &whole)? != StatementClass::Mutating {
            return Err(Exception::new(
                QUERY_NOT_ALLOWED,
                "data was given to a statement that is not an INSERT",
            ));
        }
        let from_engine = |error: String| Exception::from_engine(&error);
        let mut stream =
            session.insert(&self.sql, &self.format, &self.parameters).map_err(from_engine)?;
        let mut decoder = Decoder::new(self.compressed);
        let mut written = false;
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Data(piece)) => decoder.push(&piece, |data| {
                    written |= !data.is_empty();
                    stream.append(data).map_err(from_engine)
                })?,
                Some(Piece::End) => break,
                // Dropping the stream cancels the insert.
                None => {
                    return Err(Exception::new(
                        NETWORK_ERROR,
                        "the client left before the end of its data",
                    ));
                }
            }
        }
        decoder.finish()?;
        if !written {
            // Nothing to insert. The engine would agree, after starting and ending a pipeline.
            drop(stream);
            return Ok(Summary::default());
        }
        let result = stream.finish().map_err(from_engine)?;
        Ok(Summary::of(&result))
    }
}
