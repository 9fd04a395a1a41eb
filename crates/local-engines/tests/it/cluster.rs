//! Three brokers: what is acknowledged while some of them are away, and how clients reach them.

use local_engines::kafka::{Kafka, KafkaOptions, Topic};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a producer may take to start and to close, beyond its own limits.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
const TOPIC: &str = "events";
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes connections on to a broker, and counts them.
struct Forwarder {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
}

impl Forwarder {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                counter.fetch_add(1, Ordering::Relaxed);
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    // The end of one direction is the end of the connection.
                    thread::spawn(move || {
                        let copied = io::copy(&mut from, &mut to);
                        drop((copied, to.shutdown(std::net::Shutdown::Both)));
                    });
                }
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Sends records one after the other with acks=all. An error when one was not acknowledged in time,
/// with what the producer said about it.
fn produce(kafka: &Kafka, records: u32, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit + CLOSE_LIMIT;
    let limit = limit.as_millis();
    let producer = "org.apache.kafka.tools.ConsoleProducer";
    let mut command = kafka.tool(producer, &kafka.bootstrap());
    command
        .args(["--topic", TOPIC, "--sync"])
        .args(["--request-required-acks", "all", "--request-timeout-ms", "2000"])
        .args(["--message-send-max-retries", "100", "--max-block-ms", &limit.to_string()])
        .args(["--producer-property", "linger.ms=0"])
        .args(["--producer-property", &format!("delivery.timeout.ms={limit}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut producer = command.spawn().unwrap();
    let mut input = producer.stdin.take().unwrap();
    for number in 0..records {
        // A producer that has given up reads no more.
        drop(writeln!(input, "{number}"));
    }
    drop(input);
    // One that was not answered may wait without end when it closes.
    while producer.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            producer.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = producer.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && !text.contains("ERROR") { Ok(()) } else { Err(text) }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn writes_need_two_of_three_brokers_and_everybody_goes_through_the_advertised_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = KafkaOptions::cluster(directory.path());
    let (mut of_clients, mut of_replicas, mut of_controllers) = (vec![], vec![], vec![]);
    for broker in &mut options.brokers {
        for (listener, forwarders) in [
            (&mut broker.clients[0], &mut of_clients),
            (&mut broker.replicas, &mut of_replicas),
            (&mut broker.controller, &mut of_controllers),
        ] {
            let forwarder = Forwarder::start(listener.port);
            listener.advertised = Some(forwarder.address);
            forwarders.push(forwarder);
        }
    }
    options.brokers[0].log_dir = Some(directory.path().join("elsewhere"));
    let started = Kafka::start(options);
    let Some(kafka) = local_engines::require_or_skip("Apache Kafka", started) else { return };
    assert!(directory.path().join("elsewhere/meta.properties").is_file());
    let topic = Topic {
        name: TOPIC,
        partitions: 3,
        replicas: 3,
        settings: &[("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false")],
    };
    kafka.create_topic(&topic).unwrap();
    assert_eq!(kafka.topics().unwrap(), [TOPIC]);
    produce(&kafka, 20, PATIENCE).unwrap();
    assert_eq!(stored(&kafka), 20);
    for forwarders in [of_clients, of_replicas, of_controllers] {
        assert!(forwarders.iter().any(|forwarder| forwarder.connections() > 0));
    }

    kafka.kill(0).unwrap();
    assert!(!kafka.is_running(0) && kafka.pid(0).is_none());
    produce(&kafka, 20, PATIENCE).expect("two of three are enough");
    assert_eq!(stored(&kafka), 40);

    // Neither a second replica nor a majority of the controllers is left.
    kafka.pause(1).unwrap();
    assert!(kafka.is_running(1));
    let alone = produce(&kafka, 1, Duration::from_secs(4));
    alone.expect_err("one of three is not enough");
    kafka.kill(1).unwrap();
    kafka.launch(0).unwrap();
    kafka.restart(1).unwrap();
    until("the first broker is back", || kafka.has_started(0));
    produce(&kafka, 20, PATIENCE).unwrap();
    // What was not acknowledged may or may not have been stored.
    assert!((60..=61).contains(&stored(&kafka)), "{}", stored(&kafka));

    kafka.delete_topic(TOPIC).unwrap();
    until("the name is free", || kafka.create_topic(&topic).is_ok());
    assert_eq!(stored(&kafka), 0);
}

fn stored(kafka: &Kafka) -> u64 {
    kafka.end_offsets(TOPIC).unwrap().iter().sum()
}
