use super::*;
use axum::routing::get;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

async fn start(router: Router, limits: HttpLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
    Server { address, shutdown, task }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn headers_that_never_end_are_cut() {
    let limits = HttpLimits { header_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let server = start(Router::new().route("/", get(|| async { "hello" })), limits).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let answer = read_all(stream).await;
    assert!(!answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn a_connection_above_the_limit_waits_for_a_free_one() {
    let limits = HttpLimits { connections_max: 1, ..HttpLimits::default() };
    let server = start(Router::new().route("/", get(|| async { "hello" })), limits).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let waited = tokio::time::timeout(Duration::from_millis(200), second.peek(&mut byte)).await;
    assert!(waited.is_err(), "the second connection is not served while the first is open");
    drop(first);
    assert!(read_all(second).await.ends_with("hello"));
}

#[tokio::test]
async fn shutdown_lets_an_open_request_finish() {
    let (started, release) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (on_start, on_release) = (started.clone(), release.clone());
    let handler = move || async move {
        on_start.notify_one();
        on_release.notified().await;
        "finished"
    };
    let server = start(Router::new().route("/", get(handler)), HttpLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    started.notified().await;
    server.shutdown.cancel();
    release.notify_one();
    assert!(read_all(stream).await.ends_with("finished"));
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}
