//! The stack as separate processes: the services on Apache Kafka, Postgres and the ClickHouse engine.

use crate::demo::{self, Facts};
use crate::options::{Options, Service};
use crate::parts::clickhouse::{ClickHouse, clickhouse};
use crate::parts::kafka::kafka;
use crate::parts::postgres::postgres;
use crate::parts::service::{ServiceProcess, ServiceSpec};
use crate::secrets::Secrets;
use crate::supervisor::{Pids, Supervised, Supervisor};
use config_store::{ConfigStore, Pepper, PoolOptions};
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::lifecycle::Lifecycle;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use usage_store::{UsageStore, UsageStoreConfig};

/// Nothing runs in this process that would need longer.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    options: &Options,
    data_dir: &Path,
    secrets: &Secrets,
) -> anyhow::Result<ExitCode> {
    let mut parts: Vec<Box<dyn Supervised>> = Vec::new();
    let (brokers, started) = tokio::task::block_in_place(|| kafka(options, data_dir))?;
    let own_kafka = started.is_some();
    parts.extend(started);
    let (database_url, started) = tokio::task::block_in_place(|| postgres(options, data_dir))?;
    parts.extend(started);
    let ClickHouse { part: started, store, reader_url } =
        tokio::task::block_in_place(|| clickhouse(options, data_dir, secrets))?;
    parts.extend(started);

    let config_store = ConfigStore::connect(&database_url, PoolOptions::default()).await?;
    config_store.migrate().await?;
    let pepper: Pepper = secrets.api_key_pepper.expose().parse()?;
    let api_key = demo::seed(&config_store, &pepper, data_dir, SystemClock.now()).await?;
    config_store.close().await;

    let kafka_environment = kafka_environment(&brokers, own_kafka);
    let mut url = format!("http://{}", options.listen);
    let mut admin_url = String::new();
    if options.services.contains(&Service::IngestApi) {
        let environment = [
            ("DATABASE_URL", database_url),
            ("TALLYMARK_API_KEY_PEPPER", secrets.api_key_pepper.expose().to_owned()),
        ];
        let spec = ServiceSpec {
            name: "ingest-api",
            listen: ("TALLYMARK_LISTEN", options.listen),
            environment: environment.into_iter().chain(kafka_environment.clone()).collect(),
            data_dir: data_dir.to_owned(),
        };
        let service = tokio::task::block_in_place(|| ServiceProcess::start(spec))?;
        url = format!("http://{}", service.address());
        parts.push(Box::new(service));
    }
    if options.services.contains(&Service::EventConsumer) {
        UsageStore::connect(&store).migrate().await?;
        // The only member keeps its name, so that after a crash it need not wait for its own session to end.
        let group = [("KAFKA_GROUP_INSTANCE_ID", "event-consumer-1".to_owned())];
        let spec = ServiceSpec {
            name: "event-consumer",
            listen: ("TALLYMARK_ADMIN_LISTEN", options.admin_listen()),
            environment: store_environment(&store)
                .into_iter()
                .chain(kafka_environment)
                .chain(group)
                .collect(),
            data_dir: data_dir.to_owned(),
        };
        let service = tokio::task::block_in_place(|| ServiceProcess::start(spec))?;
        admin_url = format!("http://{}", service.address());
        parts.push(Box::new(service));
    }

    let facts = Facts { url, api_key, admin_url, clickhouse_url: reader_url, pids: Pids::new() };
    let supervisor = Supervisor::start(
        parts,
        options.restart_delay,
        facts.publisher(data_dir.to_owned(), false),
    )?;
    facts.announce(data_dir, SystemClock.now());
    let code = Lifecycle::new().run(SHUTDOWN_LIMIT).await;
    tokio::task::spawn_blocking(|| supervisor.stop()).await?;
    Ok(code)
}

fn kafka_environment(brokers: &str, own: bool) -> Vec<(&'static str, String)> {
    let mut environment = vec![("KAFKA_BROKERS", brokers.to_owned())];
    if own {
        // One broker on one disk: good enough for a try on one machine, and said so to the services.
        environment.push(("KAFKA_ALLOW_SINGLE_REPLICA", "true".to_owned()));
        environment.push(("KAFKA_REPLICATION_FACTOR", "1".to_owned()));
    }
    environment
}

fn store_environment(store: &UsageStoreConfig) -> Vec<(&'static str, String)> {
    vec![
        ("CLICKHOUSE_URL", store.url.clone()),
        ("CLICKHOUSE_DATABASE", store.database.clone()),
        ("CLICKHOUSE_USER", store.user.clone()),
        ("CLICKHOUSE_PASSWORD", store.password.expose().to_owned()),
    ]
}
