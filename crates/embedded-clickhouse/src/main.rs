//! Starts the engine, serves it until SIGTERM, and closes it.

mod write;

use anyhow::Context as _;
use clap::Parser as _;
use embedded_clickhouse::access::Users;
use embedded_clickhouse::config::{Config, DRAIN};
use embedded_clickhouse::engine::{Engine, EngineSettings};
use embedded_clickhouse::ffi::exit_at_once;
use embedded_clickhouse::server::Server;
use service_kit::http_server::{HttpLimits, serve};
use service_kit::lifecycle::Lifecycle;
use service_kit::telemetry::{self, LogFormat};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The parser of the engine is recursive and expects the stack of a main thread.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Longest time for statements whose clients are gone, after the open requests had theirs.
const STRAGGLERS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    telemetry::init(LogFormat::Text, "info");
    let config = Config::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build();
    let outcome = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(config)));
    match outcome {
        Ok(code) => exit_at_once(u8::from(code != ExitCode::SUCCESS)),
        Err(error) => {
            tracing::error!("{error:#}");
            exit_at_once(1)
        }
    }
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new();
    if config.exit_with_parent {
        end_with_input(lifecycle.shutdown_token())?;
    }
    let users = Users::from_config(&config);
    anyhow::ensure!(
        write::is_found_by_libraries(),
        "this program was linked so that libchdb does not find its `write`; it is not safe on a full disk"
    );
    // Before the engine is started: on a full disk the start waits too, and holds the lock on the data directory.
    let shutdown = lifecycle.shutdown_token();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        write::stop_waiting();
    });
    let (listen, port_file) = (config.listen, config.port_file.clone());
    let engine = tokio::task::spawn_blocking(move || {
        let settings = EngineSettings {
            max_memory: config.max_memory,
            reader_database: &config.reader_database,
        };
        Engine::start(&config.data_dir, &config.library, &settings)
    });
    let engine = Arc::new(engine.await.context("starting the engine panicked")??);
    let server = Server::new(Arc::clone(&engine), users);
    // After the engine, which waits for a predecessor that had the same address.
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("a bound socket has an address")?;
    let limits = HttpLimits {
        connections_max: 256,
        // Statements may stand in the URL, which the http crate limits to 64 KiB.
        header_bytes_max: 128 * 1024,
        // An idle connection is kept for as long as a server keeps one: a client whose connection closes at the
        // moment it sends a batch would not know whether the batch is stored.
        header_timeout: Duration::from_secs(30),
        drain_timeout: DRAIN,
    };
    lifecycle.spawn("http", serve(listener, server.router(), limits, lifecycle.shutdown_token()));
    if let Some(port_file) = &port_file {
        write_address(port_file, address)
            .with_context(|| format!("cannot write {}", port_file.display()))?;
    }
    tracing::info!(%address, version = engine.version(), "the engine answers");
    let code = lifecycle.run(DRAIN + STRAGGLERS).await;
    if server.finish(STRAGGLERS).await {
        engine.close();
        tracing::info!("the engine is closed");
    } else {
        tracing::warn!("statements still run; the engine recovers from this at the next start");
    }
    Ok(code)
}

/// Puts the address into `path` at once or not at all.
fn write_address(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    writeln!(file, "{address}")?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}

/// Asks for shutdown when standard input ends.
fn end_with_input(shutdown: CancellationToken) -> std::io::Result<()> {
    let watch = move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|n| n > 0) {}
        shutdown.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).map(drop)
}
