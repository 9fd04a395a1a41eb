//! A TCP proxy that can break what passes through it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    None,
    /// New connections are refused and open ones are cut.
    Cut,
    /// Requests pass. From an INSERT into `usage_events` on, the answers on its connection are held
    /// back until the fault is lifted or the connection is cut.
    HoldInsertAnswers,
    /// Nothing passes in either direction, and nothing is closed.
    BlackHole,
}

/// A proxy in front of one address, running on its own thread until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    upstream: Arc<Mutex<SocketAddr>>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Starts a proxy to `upstream` on a free loopback port.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (fault, watched) = watch::channel(Fault::None);
        let upstream = Arc::new(Mutex::new(upstream));
        runtime.spawn(accept(listener, upstream.clone(), watched));
        Ok(Self { address, fault, upstream, _runtime: runtime })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies to open connections and to new ones at once.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Where new connections go from now on.
    pub fn redirect(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Arc<Mutex<SocketAddr>>,
    fault: watch::Receiver<Fault>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let upstream = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cut = fault.clone();
        let fault = fault.clone();
        tokio::spawn(async move {
            if *fault.borrow() == Fault::Cut {
                return;
            }
            // An unreachable upstream looks to the client like a connection that is closed at once.
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let inserting = AtomicBool::new(false);
            tokio::select! {
                () = requests(from_client, to_server, fault.clone(), &inserting) => {}
                () = answers(from_server, to_client, fault, &inserting) => {}
                _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
            }
        });
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    inserting: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        if *fault.borrow() == Fault::HoldInsertAnswers
            && has(bytes, b"INSERT")
            && has(bytes, b"usage_events")
        {
            inserting.store(true, Ordering::Release);
        }
        if fault.wait_for(|fault| *fault != Fault::BlackHole).await.is_err()
            || to.write_all(bytes).await.is_err()
        {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    inserting: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = |fault: &Fault| {
            let held = *fault == Fault::HoldInsertAnswers && inserting.load(Ordering::Acquire);
            !held && *fault != Fault::BlackHole
        };
        if fault.wait_for(passes).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    fn echo_server() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        stream.write_all(&buffer[..length]).unwrap();
                    }
                });
            }
        });
        address
    }

    #[test]
    fn answers_are_held_then_released_and_connections_are_cut() {
        let proxy = Proxy::start(echo_server()).unwrap();
        let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
        let mut byte = [0];
        stream.write_all(b"a").unwrap();
        stream.read_exact(&mut byte).unwrap();
        proxy.set(Fault::HoldInsertAnswers);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut byte).expect("other answers pass");
        stream.write_all(b"INSERT INTO usage_events").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(stream.read_exact(&mut byte).is_err(), "the answer is held");
        proxy.set(Fault::None);
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"I");
        proxy.set(Fault::Cut);
        let mut rest = Vec::new();
        assert!(
            stream.read_to_end(&mut rest).is_err() || rest.len() < 24,
            "the connection is gone"
        );
    }
}
