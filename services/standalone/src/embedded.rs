//! The stack in one process: both services over SQLite, with the ClickHouse engine as a child.

use crate::demo::{self, Facts};
use crate::options::{Options, Service};
use crate::parts::clickhouse::{ClickHouse, clickhouse};
use crate::secrets::Secrets;
use crate::supervisor::{Pids, Supervisor};
use anyhow::Context as _;
use config_store::{ConfigStore, Pepper, PoolOptions};
use event_consumer::config::ConsumerArgs;
use event_consumer::{EventConsumer, start};
use event_log::embedded::{EmbeddedLog, EmbeddedLogOptions};
use ingest_api::{IngestApi, ServeConfig};
use service_kit::admin;
use service_kit::clock::{Clock, SystemClock};
use service_kit::http_server::{self, HttpLimits};
use service_kit::lifecycle::{Lifecycle, chain};
use service_kit::retry::Backoff;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usage_store::{UsageStore, UsageStoreConfig};

const TOPIC: &str = "usage.events";
/// Enough for every core of a small machine, and few enough that each blob of the log holds many events.
const PARTITIONS: u16 = 4;
/// Longest wait for the services to finish after Ctrl-C: open requests, the log, the last batch.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(75);
/// First and longest delay between two attempts to apply the schema.
const SCHEMA_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How the services in this process behave.
#[derive(Clone, Debug)]
pub struct ServiceConfigs {
    pub api: ServeConfig,
    pub consumer: ConsumerArgs,
}

pub(crate) async fn run(
    options: &Options,
    data_dir: &Path,
    secrets: &Secrets,
    configs: ServiceConfigs,
) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lifecycle = Lifecycle::new();
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    let log = open_log(data_dir, &clock)?;
    let pepper: Pepper = secrets
        .api_key_pepper
        .expose()
        .parse()
        .context("the pepper in secrets.env cannot be used")?;
    let config_store = open_config(data_dir).await?;
    let api_key = demo::seed(&config_store, &pepper, data_dir, clock.now()).await?;
    let ClickHouse { part, store, reader_url } =
        tokio::task::block_in_place(|| clickhouse(options, data_dir, secrets))?;

    let mut admin_url = String::new();
    if options.services.contains(&Service::EventConsumer) {
        let consumer = EventConsumer {
            log: Box::new(log.consumer("event-consumer")?),
            store: UsageStore::connect(&store),
            config: configs.consumer.config(TOPIC, PARTITIONS),
            clock: Arc::clone(&clock),
        };
        admin_url = spawn_consumer(&lifecycle, consumer, &store, options).await?;
    }
    if options.services.contains(&Service::IngestApi) {
        let api = IngestApi {
            producer: Arc::new(log.producer()),
            config_store,
            pepper,
            config: configs.api,
            clock: Arc::clone(&clock),
        };
        lifecycle.spawn("ingest-api", api.run(listener, lifecycle.shutdown_token()));
    }

    let facts = Facts { url, api_key, admin_url, clickhouse_url: reader_url, pids: Pids::new() };
    let publish = facts.publisher(data_dir.to_owned(), true);
    let supervisor = Supervisor::start(part.into_iter().collect(), options.restart_delay, publish)?;
    facts.announce(data_dir, clock.now());
    let code = lifecycle.run(SHUTDOWN_LIMIT).await;
    tokio::task::spawn_blocking(|| supervisor.stop()).await?;
    Ok(code)
}

fn open_log(data_dir: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<EmbeddedLog> {
    let path = data_dir.join("log");
    let log = EmbeddedLog::open(EmbeddedLogOptions::new(path, PARTITIONS, Arc::clone(clock)));
    log.context("cannot open the log")
}

async fn open_config(data_dir: &Path) -> anyhow::Result<ConfigStore> {
    let path = data_dir.join("config.sqlite");
    let url = format!("sqlite://{}", path.display());
    let store = ConfigStore::connect(&url, PoolOptions::default()).await?;
    store.migrate().await?;
    Ok(store)
}

/// Starts consuming, and the consumer's own endpoint for operators, whose address is returned.
async fn spawn_consumer(
    lifecycle: &Lifecycle,
    consumer: EventConsumer,
    store: &UsageStoreConfig,
    options: &Options,
) -> anyhow::Result<String> {
    let shutdown = lifecycle.shutdown_token();
    let schema = UsageStore::connect(store);
    // Usually the engine is there, and then nothing has to be tried twice. If it is not, it is waited
    // for in the background.
    let applied = schema.migrate().await;
    let (health, running) = consumer.start(shutdown.clone())?;
    lifecycle.spawn("event-consumer", async move {
        let apply = async {
            if applied.is_err() {
                apply_schema(schema, shutdown).await;
            }
        };
        // The end of the consumer is the end of the process, whether the schema was applied or not.
        tokio::pin!(running);
        tokio::select! {
            biased;
            ended = &mut running => ended,
            () = apply => running.await,
        }
    });
    let admin = TcpListener::bind(options.admin_listen()).await?;
    let url = format!("http://{}", admin.local_addr()?);
    let router = admin::router(start::probes(&health));
    let serve =
        http_server::serve(admin, router, HttpLimits::default(), lifecycle.shutdown_token());
    lifecycle.spawn("admin", serve);
    Ok(url)
}

/// Applies the schema as soon as ClickHouse is there. Until then the consumer waits, and events are accepted.
async fn apply_schema(store: UsageStore, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(SCHEMA_DELAYS.0, SCHEMA_DELAYS.1);
    while let Err(error) = store.migrate().await {
        tracing::warn!(error = chain(&error), "the schema cannot be applied yet, trying again");
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
