//! What a cluster is asked before identities are read. A server that takes notes stands in for it.

use service_kit::secret::Secret;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use usage_store::{StoreError, UsageStore, UsageStoreConfig};

/// A request: the part of its address after `?`, and its body.
type Note = (String, String);

/// Answers every request with success, but those that contain `refused`.
fn server(refused: &'static str) -> (SocketAddr, Receiver<Note>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (notes, noted) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), refused, &notes);
        }
    });
    (address, noted)
}

fn answer(stream: &TcpStream, refused: &str, notes: &Sender<Note>) {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let error = "Code: 159. DB::Exception: SYNC REPLICA: command timed out. (TIMEOUT_EXCEEDED)";
    let text = if !refused.is_empty() && body.contains(refused) {
        format!(
            "500 Internal Server Error\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{error}",
            error.len()
        )
    } else {
        "200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
    };
    let target = request.split(' ').nth(1).unwrap().split_once('?').unwrap().1.to_owned();
    // Nobody listens any more when the test has ended.
    drop(notes.send((target, body)));
    write!(&*stream, "HTTP/1.1 {text}").unwrap();
}

fn store(address: SocketAddr, cluster: Option<&str>) -> UsageStore {
    let url = format!("http://{address}");
    let config = UsageStoreConfig::new(url, "usage", "writer", Secret::new("hunter2"));
    UsageStore::connect(&UsageStoreConfig { cluster: cluster.map(str::to_owned), ..config })
}

fn parameter(note: &Note, name: &str) -> Option<String> {
    let found = note.0.split('&').filter_map(|pair| pair.split_once('='));
    found.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next()
}

fn statement(note: &Note) -> &str {
    note.1.lines().find(|line| !line.starts_with("--")).unwrap()
}

#[tokio::test]
async fn a_replica_catches_up_within_one_session_before_it_is_read() {
    let (address, noted) = server("");
    let store = store(address, Some("main"));
    store.caught_up().await.unwrap();
    store.caught_up().await.unwrap();
    let notes: Vec<_> = noted.try_iter().collect();
    let statements: Vec<_> = notes.iter().map(statement).collect();
    let expected = [
        "SELECT 1",
        "SYSTEM SYNC REPLICA usage_events LIGHTWEIGHT",
        "SYSTEM SYNC REPLICA ingest_batches LIGHTWEIGHT",
    ];
    assert_eq!(statements, [expected, expected].concat());
    let sessions: Vec<_> =
        notes.iter().map(|note| parameter(note, "session_id").unwrap()).collect();
    assert!(sessions[0] == sessions[1] && sessions[1] == sessions[2], "{sessions:?}");
    assert_ne!(sessions[2], sessions[3], "each rebuild has a session of its own");
    // The first request makes the session; the others fail on a server that does not know it.
    let checks: Vec<_> = notes.iter().map(|note| parameter(note, "session_check")).collect();
    let checked = Some("1".to_owned());
    assert_eq!(checks[..3], [None, checked.clone(), checked]);
}

#[tokio::test]
async fn what_is_read_afterwards_is_of_the_same_session() {
    let (address, noted) = server("");
    let caught_up = store(address, Some("main")).caught_up().await.unwrap();
    // The answer is empty, which is no answer.
    caught_up.highest_stored_offset("t", 1, 3).await.unwrap_err();
    let notes: Vec<_> = noted.try_iter().collect();
    assert_eq!(notes.len(), 4);
    assert_eq!(parameter(&notes[3], "session_id"), parameter(&notes[2], "session_id"));
    assert_eq!(parameter(&notes[3], "session_check").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_replica_that_does_not_catch_up_is_not_read() {
    let (address, _noted) = server("ingest_batches");
    let error = store(address, Some("main")).caught_up().await.unwrap_err();
    assert!(matches!(error, StoreError::Query { code: Some(159), .. }), "{error:?}");
}

#[tokio::test]
async fn a_single_server_is_not_asked() {
    let (address, noted) = server("");
    store(address, None).caught_up().await.unwrap();
    assert_eq!(noted.try_iter().count(), 0);
}
