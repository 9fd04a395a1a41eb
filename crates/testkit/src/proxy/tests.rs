use super::*;
use std::io::{Read as _, Write as _};
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come. It can only be too short to notice an error.
const SILENCE: Duration = Duration::from_millis(200);

/// A proxy in front of a server that sends back what it gets.
struct Rig {
    proxy: Proxy,
    received: Arc<AtomicU64>,
}

impl Rig {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        counter.fetch_add(u64::try_from(length).unwrap(), Ordering::Relaxed);
                        if stream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { proxy, received }
    }

    /// A connection that works.
    fn connect(&self) -> Client {
        let stream = std::net::TcpStream::connect(self.proxy.address()).unwrap();
        let mut client = Client(stream);
        client.send(b"a");
        client.expect(b"a");
        client
    }

    fn await_received(&self, bytes: u64) {
        await_count(bytes, || self.received.load(Ordering::Relaxed));
    }
}

fn await_count(expected: u64, count: impl Fn() -> u64) {
    let deadline = Instant::now() + PATIENCE;
    while count() != expected {
        assert!(Instant::now() < deadline, "{} and not {expected}", count());
        std::thread::yield_now();
    }
}

struct Client(std::net::TcpStream);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn expect(&mut self, bytes: &[u8]) {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut found = vec![0; bytes.len()];
        self.0.read_exact(&mut found).unwrap();
        assert_eq!(found, bytes);
    }

    fn expect_silence(&mut self) {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        let silent = self.0.read(&mut [0]).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }

    /// What still comes until the connection ends.
    fn rest(&mut self) -> Vec<u8> {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut rest, mut byte) = (Vec::new(), [0]);
        loop {
            match self.0.read(&mut byte) {
                Ok(1) => rest.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the connection is still there")
                }
                _ => return rest,
            }
        }
    }
}

#[test]
fn answers_are_held_then_released_and_connections_are_cut() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::HoldInsertAnswers);
    client.send(b"x");
    client.expect(b"x");
    client.send(b"INSERT INTO usage_events");
    client.expect_silence();
    rig.proxy.set(Fault::None);
    client.expect(b"INSERT INTO usage_events");
    rig.proxy.set(Fault::Cut);
    assert_eq!(client.rest(), b"");
}

/// Also when the connection gets no chance to see it.
#[test]
fn a_cut_of_a_moment_cuts() {
    let rig = Rig::start();
    let mut clients: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    rig.proxy.set(Fault::Cut);
    rig.proxy.set(Fault::None);
    clients.iter_mut().for_each(|client| assert_eq!(client.rest(), b""));
    assert_eq!(rig.proxy.counts().hits, 20);
    rig.connect();
}

#[test]
fn open_connections_go_on_when_new_ones_are_refused() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::RefuseNew);
    let refused = std::net::TcpStream::connect(rig.proxy.address()).unwrap();
    assert_eq!(Client(refused).rest(), b"");
    client.send(b"b");
    client.expect(b"b");
    let counts = rig.proxy.counts();
    assert_eq!((counts.connections, counts.refused, counts.hits), (1, 1, 1));
}

#[test]
fn what_a_black_hole_holds_comes_out_and_it_holds_little() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::BlackHole);
    client.send(b"bcd");
    client.expect_silence();
    assert_eq!(rig.received.load(Ordering::Relaxed), 1);
    rig.proxy.set(Fault::None);
    client.expect(b"bcd");

    rig.proxy.set(Fault::BlackHole);
    client.0.set_write_timeout(Some(SILENCE)).unwrap();
    let mebibyte = vec![0; 1024 * 1024];
    let taken = (0..64).take_while(|_| client.0.write_all(&mebibyte).is_ok()).count();
    assert!(taken < 64, "the sender has to wait");
}

#[test]
fn a_client_that_leaves_a_black_hole_is_noticed_afterwards() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::BlackHole);
    client.send(b"b");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_silence();
    rig.proxy.set(Fault::None);
    assert_eq!(client.rest(), b"b");
}

#[test]
fn a_half_open_connection_loses_one_direction_and_does_not_come_back() {
    for (direction, received) in [(Direction::Answers, 3), (Direction::Requests, 1)] {
        let rig = Rig::start();
        let mut client = rig.connect();
        rig.proxy.set(Fault::HalfOpen(direction));
        client.send(b"bc");
        rig.await_received(received);
        await_count(1, || rig.proxy.counts().hits);
        client.expect_silence();
        rig.proxy.set(Fault::None);
        assert_eq!(client.rest(), b"");
        rig.connect();
    }
}

#[test]
fn an_idle_connection_survives_a_half_open_link() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::HalfOpen(Direction::Answers));
    rig.proxy.set(Fault::None);
    client.send(b"b");
    client.expect(b"b");
    assert_eq!(rig.proxy.counts().hits, 0);
}

#[test]
fn a_dropped_answer_was_asked_for() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::DropAnswers);
    client.send(b"bc");
    assert_eq!(client.rest(), b"");
    rig.await_received(3);
    assert_eq!(rig.proxy.counts().hits, 1);
}

#[test]
fn connections_are_cut_after_so_many_bytes() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::TruncateRequests(5));
    client.send(b"bc");
    client.expect(b"bc");
    client.send(b"defghi");
    client.rest();
    rig.await_received(6);

    rig.proxy.set(Fault::None);
    let mut client = rig.connect();
    rig.proxy.set(Fault::TruncateAnswers(5));
    client.send(b"0123456789");
    assert_eq!(client.rest(), b"01234");
    rig.await_received(17);
    assert_eq!(rig.proxy.counts().hits, 2);

    // Exactly as many as are sent.
    rig.proxy.set(Fault::None);
    let mut client = rig.connect();
    rig.proxy.set(Fault::TruncateAnswers(2));
    client.send(b"xy");
    assert_eq!(client.rest(), b"xy");
    assert_eq!(rig.proxy.counts().hits, 3);
}

#[test]
fn a_slow_link_takes_its_time_until_it_is_fast_again() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::Slow { bytes_per_second: 1000 });
    let started = Instant::now();
    let text = [b'b'; 300];
    client.send(&text);
    client.expect(&text);
    // The last piece of 50 bytes does not wait for itself.
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    assert!(rig.proxy.counts().hits >= 1);

    rig.proxy.set(Fault::Slow { bytes_per_second: 0 });
    client.send(&text);
    rig.await_received(302);
    rig.proxy.set(Fault::None);
    client.expect(&text);
}

#[test]
fn a_delay_ends_with_its_fault() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::Delay(Duration::from_millis(100)));
    let started = Instant::now();
    client.send(b"b");
    client.expect(b"b");
    assert!(started.elapsed() >= Duration::from_millis(200), "once there and once back");
    rig.proxy.set(Fault::Delay(Duration::from_secs(3600)));
    client.send(b"c");
    client.expect_silence();
    rig.proxy.set(Fault::None);
    client.expect(b"c");
}

const INSERT: &[u8] = b"POST /?query=INSERT+INTO+usage_events HTTP/1.1\r\n\
    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const SELECT: &[u8] = b"POST /?query=SELECT HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

#[test]
fn inserts_are_refused_with_an_exception_and_do_not_pass() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::AnswerInsertsWith(241));
    client.send(SELECT);
    client.expect(SELECT);
    let before = rig.received.load(Ordering::Relaxed);
    // The end of the request comes later.
    client.send(&INSERT[..INSERT.len() - 4]);
    client.expect_silence();
    client.send(&INSERT[INSERT.len() - 4..]);
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("Code: 241. DB::Exception: "), "{answer}");
    assert_eq!(rig.received.load(Ordering::Relaxed), before);
    assert_eq!(rig.proxy.counts().hits, 1);
}

#[test]
fn queries_are_refused_with_an_exception_and_inserts_pass() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::AnswerQueriesWith(241));
    client.send(INSERT);
    client.expect(INSERT);
    let before = rig.received.load(Ordering::Relaxed);
    client.send(SELECT);
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("Code: 241. DB::Exception: "), "{answer}");
    assert_eq!(rig.received.load(Ordering::Relaxed), before);
    assert_eq!(rig.proxy.counts().hits, 1);
}

#[test]
fn inserts_pass_and_are_answered_with_an_exception() {
    let rig = Rig::start();
    let mut client = rig.connect();
    rig.proxy.set(Fault::FailAfterInsert(319));
    client.send(SELECT);
    client.expect(SELECT);
    let before = rig.received.load(Ordering::Relaxed);
    client.send(INSERT);
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("Code: 319. DB::Exception: "), "{answer}");
    rig.await_received(before + u64::try_from(INSERT.len()).unwrap());
    assert_eq!(rig.proxy.counts().hits, 1);
}

#[test]
fn bytes_are_counted_in_each_direction() {
    let rig = Rig::start();
    let mut client = rig.connect();
    client.send(b"bcd");
    client.expect(b"bcd");
    let counts =
        Counts { connections: 1, bytes_to_server: 4, bytes_to_client: 4, ..Counts::default() };
    assert_eq!(rig.proxy.counts(), counts);
}
