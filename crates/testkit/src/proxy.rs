//! A TCP proxy that can break what passes through it.
//!
//! A connection is one buffer of 64 KiB for each direction: what a fault holds back waits in there,
//! then in the sockets, and then the sender waits.

mod http;
mod pump;

#[cfg(test)]
mod tests;

use pump::{End, LastRequest, Pump};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Open connections of one proxy. Further ones are refused.
const CONNECTIONS_MAX: usize = 1024;

/// What happens to the bytes. A request is what a client sends, an answer is what the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    None,
    /// New connections are refused and open ones are cut. A connection is refused by closing it.
    Cut,
    /// New connections are refused and open ones go on.
    RefuseNew,
    /// Nothing passes in either direction, and nothing is closed. What was held back passes when the
    /// fault is lifted, as it would after a network was away.
    BlackHole,
    /// What is sent in one direction vanishes, and nothing is closed. A connection that has lost
    /// something is cut when the fault is lifted: no peer ever sees a stream with a hole.
    HalfOpen(Direction),
    /// Requests pass. When the answer begins, the connection is cut and nothing of it passes.
    DropAnswers,
    /// Each connection is cut after so many more bytes towards the server.
    TruncateRequests(u64),
    /// Each connection is cut after so many more bytes towards the client.
    TruncateAnswers(u64),
    /// Each direction of each connection passes so many bytes per second, and at least one.
    Slow { bytes_per_second: u32 },
    /// Every piece of up to 64 KiB passes so much later, one after the other.
    Delay(Duration),
    /// Requests pass. From an INSERT into `usage_events` on, the answers on its connection are held
    /// back until the fault is lifted or the connection is cut.
    HoldInsertAnswers,
    /// ClickHouse's HTTP interface only: every INSERT is read to its end and does not pass. It is
    /// answered with an exception of this code, and its connection is closed.
    AnswerInsertsWith(u16),
    /// ClickHouse's HTTP interface only: every INSERT passes. Instead of the server's answer the
    /// client gets an exception of this code, and its connection is closed.
    FailAfterInsert(u16),
    /// The same as [`Self::AnswerInsertsWith`] for everything but INSERTs.
    AnswerQueriesWith(u16),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the server.
    Requests,
    /// Towards the client.
    Answers,
}

/// What a proxy has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were passed on.
    pub connections: u64,
    /// Connections that were closed at once, by a fault or because there were too many.
    pub refused: u64,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
    /// How often a fault did something: refused or cut a connection, or changed when or whether a
    /// piece of up to 64 KiB passed.
    pub hits: u64,
}

/// A proxy in front of one address, running on its own thread until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

/// The fault that was set last.
#[derive(Clone, Copy, Debug)]
struct State {
    fault: Fault,
    /// How many faults were set, and how many of them were cuts. The watchers of a value may miss
    /// one that lasts a moment, and every open connection must notice a cut.
    serial: u64,
    cuts: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    connections: AtomicU64,
    refused: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    hits: AtomicU64,
}

impl Proxy {
    /// Starts a proxy to `upstream` on a free loopback port. Nobody needs to listen there yet.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State { fault: Fault::None, serial: 0, cuts: 0 });
        let shared = Arc::new(Shared::new(upstream));
        runtime.spawn(accept(listener, Arc::clone(&shared), watched));
        Ok(Self { address, state, shared, _runtime: runtime })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the fault. Applies to open connections and to new ones at once.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|state| {
            state.fault = fault;
            state.serial += 1;
            state.cuts += u64::from(fault == Fault::Cut);
        });
    }

    /// Where new connections go from now on.
    pub fn redirect(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    pub fn counts(&self) -> Counts {
        let Shared { upstream: _, connections, refused, to_server, to_client, hits } =
            &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: read(connections),
            refused: read(refused),
            bytes_to_server: read(to_server),
            bytes_to_client: read(to_client),
            hits: read(hits),
        }
    }
}

impl Shared {
    fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream: Mutex::new(upstream),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, state: watch::Receiver<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok((client, _)) = listener.accept().await {
        let by_fault = matches!(state.borrow().fault, Fault::Cut | Fault::RefuseNew);
        let place = Arc::clone(&places).try_acquire_owned();
        let (Ok(place), false) = (place, by_fault) else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            if by_fault {
                shared.hit();
            }
            continue;
        };
        let (shared, state) = (Arc::clone(&shared), state.clone());
        tokio::spawn(async move {
            let _place = place;
            pass_until_cut(client, &shared, state).await;
        });
    }
}

async fn pass_until_cut(client: TcpStream, shared: &Shared, state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let mut later = state.clone();
    let cut = async {
        let cut = later.wait_for(|state| state.cuts != cuts).await.is_ok();
        // Counted before anybody can see that the connection is gone.
        if cut {
            shared.hit();
        }
    };
    tokio::select! {
        // An unreachable upstream looks to the client like a connection that is closed at once.
        _ = pass(client, shared, state) => {}
        () = cut => {}
    }
}

/// Passes everything in both directions until both have ended, or one has ended badly.
async fn pass(client: TcpStream, shared: &Shared, state: watch::Receiver<State>) -> io::Result<()> {
    let upstream = *shared.upstream.lock().unwrap_or_else(PoisonError::into_inner);
    let server = TcpStream::connect(upstream).await?;
    // Small pieces that were sent apart go on apart.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let last_request = LastRequest::default();
    let requests = Pump::new(Direction::Requests, state.clone(), shared, &last_request);
    let answers = Pump::new(Direction::Answers, state, shared, &last_request);
    let ended = tokio::try_join!(
        requests.run(&mut from_client, &mut to_server),
        answers.run(&mut from_server, &mut to_client),
    );
    if let Err(End::Answered(code)) = ended {
        to_client.write_all(http::exception(code).as_bytes()).await?;
        to_client.shutdown().await?;
    }
    Ok(())
}
