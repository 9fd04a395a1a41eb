//! Puts the process together: the topic, the store, the endpoint for operators.

use crate::config::{MigrateArgs, ServeArgs};
use crate::{ConsumerError, ConsumerHealth, EventConsumer};
use event_log::LogError;
use event_log::kafka::{KafkaConfig, KafkaConsumer, ensure_topic};
use service_kit::admin::{self, ProbeSet};
use service_kit::clock::SystemClock;
use service_kit::http_server::{self, HttpLimits};
use service_kit::lifecycle::{Lifecycle, chain};
use service_kit::listen::bind;
use service_kit::retry::Backoff;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use usage_store::{StoreError, UsageStore};

/// First and longest delay between two attempts to reach Kafka.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why the process could not start, or not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    #[error("the endpoint for operators cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("Kafka cannot be used")]
    Log(#[from] LogError),
    #[error("the schema cannot be applied")]
    Migrate(#[source] StoreError),
}

/// Brings the ClickHouse database to the schema this version needs.
pub async fn migrate(args: &MigrateArgs) -> Result<(), StartError> {
    UsageStore::connect(&args.store.config()).migrate().await.map_err(StartError::Migrate)?;
    tracing::info!(database = args.store.clickhouse_database, "the schema is up to date");
    Ok(())
}

/// Consumes until the process is asked to end. ClickHouse may be away for any time, from the start on.
pub async fn serve(args: &ServeArgs) -> Result<ExitCode, StartError> {
    let config =
        args.consumer.config(&args.kafka.topic.kafka_topic, args.kafka.topic.kafka_partitions);
    config.validate()?;
    let kafka = args.kafka.config(args.consumer.topic_epoch);
    let address = args.admin_listen;
    let listener = bind(address, args.address_file.as_deref())
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    await_topic(&kafka, args.startup_timeout).await?;
    let consumer = EventConsumer {
        log: Box::new(KafkaConsumer::connect(&kafka)?),
        store: UsageStore::connect(&args.store.config()),
        config,
        clock: Arc::new(SystemClock),
    };
    // The last batch may take the drain time; then the group is left.
    let limit = consumer.config.drain_timeout + Duration::from_secs(15);
    let lifecycle = Lifecycle::new();
    let (health, running) = consumer.start(lifecycle.shutdown_token())?;
    lifecycle.spawn("event-consumer", running);
    let router = admin::router(probes(&health));
    lifecycle.spawn(
        "admin",
        http_server::serve(listener, router, HttpLimits::default(), lifecycle.shutdown_token()),
    );
    Ok(lifecycle.run(limit).await)
}

/// What the endpoint for operators answers for a consumer.
pub fn probes(health: &ConsumerHealth) -> ProbeSet {
    let (live, ready) = (health.clone(), health.clone());
    ProbeSet { live: Arc::new(move || live.live()), ready: Arc::new(move || ready.ready()) }
}

/// Checks the topic, trying again for up to `limit` while Kafka is away.
async fn await_topic(config: &KafkaConfig, limit: Duration) -> Result<(), LogError> {
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new(DELAYS.0, DELAYS.1);
    while let Err(error) = ensure_topic(config).await {
        let next = Instant::now() + backoff.next_delay();
        if !matches!(error, LogError::Transient { .. }) || next > deadline {
            return Err(error);
        }
        tracing::warn!(error = chain(&error), "Kafka is not there yet, trying again");
        tokio::time::sleep_until(next).await;
    }
    Ok(())
}
