//! Prints what an event costs in CPU time: each stage alone, and the server behind a socket.
//!
//! `cargo run --release -p ingest-api --example cpu_per_event -- [events per request] [seconds]`
//!
//! The log is a stub that confirms at once, and the server runs on one thread of its own, whose CPU
//! time the kernel reports. Nothing is asserted: numbers depend on the machine.
#![expect(clippy::print_stdout, reason = "the numbers are what this program is for")]
#![expect(clippy::cast_precision_loss, clippy::float_arithmetic, reason = "nothing here is billed")]

use anyhow::Context as _;
use config_store::{ConfigStore, Pepper, PoolOptions, Scope};
use event_log::{EventLogProducer, PublishError, PublishFuture, RecordBatch, wire};
use ingest_api::{IngestApi, ServeConfig};
use metering::identity::partition_of;
use metering::{
    Aggregation, BillableMetric, EventRequest, MetricCatalog, ValidationRules, validate,
};
use service_kit::clock::{Clock as _, SystemClock};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 8;
const SERVER_THREAD: &str = "measured-server";

/// A log that confirms every batch at once and forgets it.
#[derive(Debug)]
struct Forgetful;

impl EventLogProducer for Forgetful {
    fn partition_count(&self) -> u16 {
        12
    }

    fn publish(&self, batch: RecordBatch) -> PublishFuture {
        black_box(batch.byte_len());
        Box::pin(std::future::ready(Ok(())))
    }

    fn unready(&self) -> Option<String> {
        None
    }

    fn flush(
        &self,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let events: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let body = body(events);
    println!("{events} events per request, {} bytes per event", body.len() / events);
    stages(&body, events, Duration::from_secs(1).mul_f64(seconds as f64 / 5.0))?;
    server(&body, events, Duration::from_secs(seconds))
}

/// Events of about 390 bytes, as clients send them.
fn body(events: usize) -> String {
    let timestamp = SystemClock.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let event = |n: usize| {
        format!(
            "{{\"transaction_id\":\"0198c0de-7000-7000-8000-{n:012}\",\"external_customer_id\":\"customer-{:06}\",\"external_subscription_id\":\"subscription-{:06}\",\"code\":\"tokens\",\"timestamp\":\"{timestamp}\",\"properties\":{{\"tokens\":{},\"model\":\"large-2\",\"region\":\"eu-west-1\",\"endpoint\":\"/v1/completions\",\"project\":\"project-{:04}\",\"cached\":false,\"latency_ms\":{}}}}}",
            n % 1000,
            n % 1000,
            n * 7 + 1,
            n % 100,
            n % 997
        )
    };
    format!("{{\"events\":[{}]}}", (0..events).map(event).collect::<Vec<_>>().join(","))
}

fn metric() -> BillableMetric {
    BillableMetric {
        code: "tokens".to_owned(),
        aggregation: Aggregation::Sum,
        field: Some("tokens".to_owned()),
    }
}

/// The stages that do not wait, each alone on this thread.
fn stages(body: &str, events: usize, time: Duration) -> anyhow::Result<()> {
    let catalog: MetricCatalog = [metric()].into_iter().collect();
    let rules = ValidationRules::default();
    let at = SystemClock.now();
    let request = EventRequest::parse(body, events)?;
    let validated = validate(&request, "org_demo", &catalog, &rules, at);
    anyhow::ensure!(validated.accepted.len() == events, "every event is good");
    stage("utf-8", events, time, || {
        black_box(std::str::from_utf8(body.as_bytes()).is_ok());
    });
    stage("parse", events, time, || {
        black_box(EventRequest::parse(body, events).is_ok());
    });
    stage("validate", events, time, || {
        black_box(validate(&request, "org_demo", &catalog, &rules, at));
    });
    stage("records", events, time, || {
        let mut batch = RecordBatch::with_capacity(events, 2 * body.len());
        for event in &validated.accepted {
            batch.push(
                |key| event.write_identity_key(key),
                |key| partition_of(key, 12),
                |value| wire::encode(event, 1, value),
            );
        }
        black_box(batch.byte_len());
    });
    Ok(())
}

fn stage(name: &str, events: usize, time: Duration, mut run: impl FnMut()) {
    let (cpu, start, mut rounds) = (cpu_of("/proc/thread-self/stat"), Instant::now(), 0_usize);
    while start.elapsed() < time {
        run();
        rounds += 1;
    }
    let cpu = cpu_of("/proc/thread-self/stat").saturating_sub(cpu);
    println!("{name:>16}: {:.3} µs per event", cpu.as_secs_f64() * 1e6 / (rounds * events) as f64);
}

/// The whole service on one thread, with clients on others.
fn server(body: &str, events: usize, time: Duration) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let shutdown = CancellationToken::new();
    let (listening, listens) = std::sync::mpsc::channel();
    let database = format!("sqlite://{}", directory.path().join("config.db").display());
    let thread = std::thread::Builder::new().name(SERVER_THREAD.to_owned()).spawn({
        let shutdown = shutdown.clone();
        move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (api, key) = service(&database).await?;
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                listening.send((listener.local_addr()?, key))?;
                Ok(api.run(listener, shutdown).await?)
            })
        }
    })?;
    let (address, key) = listens.recv()?;
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (cpu, start) = (server_cpu()?, Instant::now());
    clients.block_on(async {
        let sends = (0..CLIENTS).map(|_| {
            send(address, request.clone().into_bytes(), Arc::clone(&done), Arc::clone(&requests))
        });
        let sends: Vec<_> = sends.map(tokio::spawn).collect();
        tokio::time::sleep(time).await;
        done.store(true, Ordering::Relaxed);
        for send in sends {
            send.await??;
        }
        anyhow::Ok(())
    })?;
    let (cpu, elapsed) = (server_cpu()? - cpu, start.elapsed());
    let sent = requests.load(Ordering::Relaxed) as f64 * events as f64;
    println!("{:>16}: {:.3} µs per event", "server", cpu.as_secs_f64() * 1e6 / sent);
    println!(
        "{:>16}: {:.0} events/s over {CLIENTS} connections",
        "throughput",
        sent / elapsed.as_secs_f64()
    );
    shutdown.cancel();
    thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
}

async fn service(database: &str) -> anyhow::Result<(IngestApi, String)> {
    let at = SystemClock.now();
    let config_store = ConfigStore::connect(database, PoolOptions::default()).await?;
    config_store.migrate().await?;
    let pepper = Pepper::new(b"a pepper for measurements")?;
    config_store.create_organization(Some("org_demo"), "Demo", at).await?;
    config_store.create_billable_metric("org_demo", &metric(), at).await?;
    let (_, key) = config_store
        .create_api_key("org_demo", &pepper, "demo", &[Scope::Ingest], None, at)
        .await?;
    let unlimited = NonZeroU32::new(1_000_000_000).context("above zero")?;
    let config = ServeConfig {
        rate_limit_events: unlimited,
        rate_limit_burst: unlimited,
        ..ServeConfig::default()
    };
    Ok((
        IngestApi {
            producer: Arc::new(Forgetful),
            config_store,
            pepper,
            config,
            clock: Arc::new(SystemClock),
        },
        key,
    ))
}

async fn send(
    address: std::net::SocketAddr,
    request: Vec<u8>,
    done: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 4 << 20];
    while !done.load(Ordering::Relaxed) {
        stream.write_all(&request).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut answer[filled..]).await?;
            anyhow::ensure!(read > 0, "the server closed the connection");
            filled += read;
            let text = &answer[..filled];
            let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            anyhow::ensure!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(text));
            let headers = String::from_utf8_lossy(&text[..head]).to_ascii_lowercase();
            let length = headers
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next())
                .context("a length")?;
            if filled == head + 4 + length.trim().parse::<usize>()? {
                break;
            }
        }
        requests.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// CPU time of the server's thread so far.
fn server_cpu() -> anyhow::Result<Duration> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == SERVER_THREAD {
            return Ok(cpu_of(task.join("stat")));
        }
    }
    anyhow::bail!("the server's thread is gone")
}

/// User and system time in a `stat` file of the kernel, to the clock tick (10 ms); zero when there is none.
fn cpu_of(stat: impl AsRef<std::path::Path>) -> Duration {
    let stat = std::fs::read_to_string(stat).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
