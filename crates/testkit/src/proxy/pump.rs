//! One direction of a connection: reads a piece, asks what is to happen to it, and does that.

use super::http::{self, Request};
use super::{Direction, Fault, Shared, State};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Most that is read at once and held back, in bytes.
const PIECE_MAX: usize = 64 * 1024;
/// A slow link passes its bytes in so many pieces per second.
const SLOW_PIECES: u32 = 20;

/// Why both directions end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Cut,
    /// The client is to get an exception of this code first.
    Answered(u16),
}

/// What happens next to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many bytes of it pass.
    Pass(usize),
    /// It waits for another fault.
    Wait,
    WaitUntil(Instant),
    /// It vanishes.
    Lose,
    End(End),
    /// It begins a request of ClickHouse's HTTP interface that is not to pass.
    Refuse(u16),
}

/// What both directions of a connection know about its last request.
#[derive(Debug, Default)]
pub(super) struct LastRequest {
    /// It is an INSERT of ClickHouse's HTTP interface.
    inserts: AtomicBool,
    /// It is an INSERT into `usage_events` whose answer is to be held.
    held: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Pump<'a> {
    direction: Direction,
    state: watch::Receiver<State>,
    shared: &'a Shared,
    last_request: &'a LastRequest,
    /// The fault that made bytes vanish.
    lost: Option<u64>,
    /// The fault under which bytes were counted last, and how many have passed under it.
    passed: (u64, u64),
    /// Before this a slow link passes nothing.
    free_at: Instant,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        direction: Direction,
        state: watch::Receiver<State>,
        shared: &'a Shared,
        last_request: &'a LastRequest,
    ) -> Self {
        let free_at = Instant::now();
        Self { direction, state, shared, last_request, lost: None, passed: (0, 0), free_at }
    }

    /// Runs until the sender has ended its direction and the receiver has been told.
    pub(super) async fn run(
        mut self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), End> {
        let mut buffer = vec![0; PIECE_MAX];
        loop {
            let lost = self.lost;
            let mut state = self.state.clone();
            let length = tokio::select! {
                read = from.read(&mut buffer) => read,
                // The fault is lifted that has made a hole in the stream.
                Ok(_) = state.wait_for(|state| lost.is_some_and(|lost| lost != state.serial)) => {
                    return Err(End::Cut);
                }
            };
            match length {
                Ok(length @ 1..) => self.pass(&buffer[..length], from, to).await?,
                // No word of it comes through what stops bytes.
                ended => {
                    self.pass_end().await?;
                    ended.and(to.shutdown().await).map_err(|_| End::Cut)?;
                    return Ok(());
                }
            }
        }
    }

    async fn pass(
        &mut self,
        mut piece: &[u8],
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), End> {
        self.note_request(piece);
        let (arrived, mut hit) = (Instant::now(), None);
        while !piece.is_empty() {
            let state = *self.state.borrow_and_update();
            let step = self.step(state, piece, arrived);
            let mut note_hit = || {
                if hit.replace(state.serial) != Some(state.serial) {
                    self.shared.hit();
                }
            };
            if step != Step::Pass(piece.len()) {
                note_hit();
            }
            match step {
                Step::Pass(length) => {
                    self.count(state, length);
                    to.write_all(&piece[..length]).await.map_err(|_| End::Cut)?;
                    piece = &piece[length..];
                    if self.is_used_up(state) {
                        note_hit();
                        return Err(End::Cut);
                    }
                }
                Step::Wait => self.state.changed().await.map_err(|_| End::Cut)?,
                Step::WaitUntil(time) => tokio::select! {
                    () = sleep_until(time) => {}
                    changed = self.state.changed() => changed.map_err(|_| End::Cut)?,
                },
                Step::Lose => {
                    self.lost = Some(state.serial);
                    return Ok(());
                }
                Step::End(end) => return Err(end),
                Step::Refuse(code) => {
                    read_to_end(piece, from).await?;
                    return Err(End::Answered(code));
                }
            }
        }
        Ok(())
    }

    fn note_request(&self, piece: &[u8]) {
        if self.direction == Direction::Answers {
            return;
        }
        let LastRequest { inserts, held } = self.last_request;
        if http::begins_request(piece) {
            inserts.store(http::begins_insert(piece), Ordering::Release);
            held.store(false, Ordering::Release);
        }
        // Looked for only then: it takes time.
        let holds = self.state.borrow().fault == Fault::HoldInsertAnswers;
        if holds && http::names_usage_events(piece) {
            held.store(true, Ordering::Release);
        }
    }

    /// Waits until the fault lets the end of the stream pass.
    async fn pass_end(&mut self) -> Result<(), End> {
        loop {
            let state = *self.state.borrow_and_update();
            match self.step(state, &[0], Instant::now()) {
                Step::Wait => {}
                Step::Lose => self.lost = Some(state.serial),
                _ if self.lost.is_some_and(|lost| lost != state.serial) => return Err(End::Cut),
                _ => return Ok(()),
            }
            self.state.changed().await.map_err(|_| End::Cut)?;
        }
    }

    /// Decides about a piece that has at least one byte.
    fn step(&self, state: State, piece: &[u8], arrived: Instant) -> Step {
        use Direction::{Answers, Requests};
        let LastRequest { inserts, held } = self.last_request;
        if self.lost.is_some_and(|lost| lost != state.serial) {
            return Step::End(End::Cut);
        }
        match (state.fault, self.direction) {
            (Fault::Cut, _) | (Fault::DropAnswers, Answers) => Step::End(End::Cut),
            (Fault::BlackHole, _) => Step::Wait,
            (Fault::HalfOpen(direction), own) if direction == own => Step::Lose,
            (Fault::TruncateRequests(limit), Requests)
            | (Fault::TruncateAnswers(limit), Answers) => {
                let left = limit.saturating_sub(self.passed_under(state));
                match usize::try_from(left).unwrap_or(usize::MAX) {
                    0 => Step::End(End::Cut),
                    left => Step::Pass(piece.len().min(left)),
                }
            }
            (Fault::Slow { .. }, _) if Instant::now() < self.free_at => {
                Step::WaitUntil(self.free_at)
            }
            (Fault::Slow { bytes_per_second }, _) => {
                let most = usize::try_from(bytes_per_second / SLOW_PIECES).unwrap_or(usize::MAX);
                Step::Pass(piece.len().min(most.max(1)))
            }
            (Fault::Delay(delay), _) if Instant::now() < arrived + delay => {
                Step::WaitUntil(arrived + delay)
            }
            (Fault::HoldInsertAnswers, Answers) if held.load(Ordering::Acquire) => Step::Wait,
            (Fault::AnswerInsertsWith(code), Requests) if http::begins_insert(piece) => {
                Step::Refuse(code)
            }
            (Fault::AnswerQueriesWith(code), Requests) if http::begins_query(piece) => {
                Step::Refuse(code)
            }
            (Fault::FailAfterInsert(code), Answers) if inserts.load(Ordering::Acquire) => {
                Step::End(End::Answered(code))
            }
            _ => Step::Pass(piece.len()),
        }
    }

    fn count(&mut self, state: State, length: usize) {
        let length = u64::try_from(length).expect("a piece is short");
        self.passed = (state.serial, self.passed_under(state) + length);
        let counter = match self.direction {
            Direction::Requests => &self.shared.to_server,
            Direction::Answers => &self.shared.to_client,
        };
        counter.fetch_add(length, Ordering::Relaxed);
        if let Fault::Slow { bytes_per_second } = state.fault {
            let nanoseconds = length * 1_000_000_000 / u64::from(bytes_per_second.max(1));
            self.free_at = Instant::now() + Duration::from_nanos(nanoseconds);
        }
    }

    fn passed_under(&self, state: State) -> u64 {
        if self.passed.0 == state.serial { self.passed.1 } else { 0 }
    }

    /// Whether all bytes have passed that a truncating fault lets through.
    fn is_used_up(&self, state: State) -> bool {
        match (state.fault, self.direction) {
            (Fault::TruncateRequests(limit), Direction::Requests)
            | (Fault::TruncateAnswers(limit), Direction::Answers) => {
                self.passed_under(state) >= limit
            }
            _ => false,
        }
    }
}

/// Reads a request to its end and forgets it.
async fn read_to_end(piece: &[u8], from: &mut OwnedReadHalf) -> Result<(), End> {
    let (mut request, rest) = Request::begin(piece).ok_or(End::Cut)?;
    request.read(rest);
    let mut buffer = vec![0; PIECE_MAX];
    while !request.has_ended() {
        match from.read(&mut buffer).await {
            Ok(length @ 1..) => request.read(&buffer[..length]),
            _ => return Err(End::Cut),
        }
    }
    Ok(())
}
