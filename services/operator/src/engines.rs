//! The log and the store that a command works on: servers, or those of a data directory.

mod data_dir;

use crate::config::EngineArgs;
use anyhow::Context as _;
use data_dir::DataDir;
use event_consumer::decode::Source;
use event_log::embedded::{EmbeddedLog, EmbeddedLogLock, EmbeddedLogOptions, EmbeddedReader};
use event_log::kafka::{KafkaConfig, KafkaProducer, KafkaReader};
use event_log::{EventLogProducer, EventLogReader, LogError};
use local_engines::clickhouse::EmbeddedClickHouse;
use service_kit::clock::SystemClock;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;
use usage_store::UsageStore;

/// The topic of embedded engines.
const EMBEDDED_TOPIC: &str = "usage.events";

/// A log to read and a store.
#[derive(Debug)]
pub struct Engines {
    pub reader: Box<dyn EventLogReader>,
    pub store: UsageStore,
    pub source: Source,
}

/// A log to write to and a store to read from.
#[derive(Debug)]
pub struct PublishingEngines {
    pub producer: Arc<dyn EventLogProducer>,
    pub store: UsageStore,
    pub source: Source,
    /// Started by this command, and stopped with it.
    engine: Option<EmbeddedClickHouse>,
}

/// What a command has started for its own time, because the stack is stopped.
#[derive(Debug)]
pub struct StartedHere {
    engine: Option<EmbeddedClickHouse>,
    /// A stack that is started meanwhile would not know the ids that are being restored.
    _lock: EmbeddedLogLock,
}

/// The engines as `args` name them; nothing is locked, and the services may run.
pub async fn open(args: &EngineArgs) -> anyhow::Result<Engines> {
    let engines = block_in_place(|| connect(args))?;
    answering(engines.store.clone()).await?;
    Ok(engines)
}

/// As [`open`]. Of a data directory whose stack is stopped, the ClickHouse engine is started here, and
/// the stack cannot start before [`StartedHere`] is gone.
pub async fn open_or_start(args: &EngineArgs) -> anyhow::Result<(Engines, Option<StartedHere>)> {
    let stopped = block_in_place(|| {
        let data_dir = args.data_dir.as_deref().map(DataDir::open).transpose()?;
        let Some(data_dir) = data_dir else { return Ok(None) };
        match EmbeddedLogLock::take(&data_dir.log()) {
            Ok(lock) => Ok(Some((data_dir, lock))),
            // Somebody has it open: the stack runs.
            Err(LogError::Contract(_)) => Ok(None),
            Err(error) => Err(anyhow::Error::from(error)),
        }
    })?;
    let Some((data_dir, lock)) = stopped else { return Ok((open(args).await?, None)) };
    let (reader, source, config, engine) = block_in_place(|| {
        let (config, engine) = data_dir.own_store(&args.store)?;
        let reader = EmbeddedReader::open(&data_dir.log(), &args.kafka_group)?;
        let source = embedded_source(args, reader.partition_count());
        anyhow::Ok((Box::new(reader), source, config, engine))
    })?;
    let store = answering(UsageStore::connect(&config)).await?;
    Ok((Engines { reader, store, source }, Some(StartedHere { engine, _lock: lock })))
}

fn connect(args: &EngineArgs) -> anyhow::Result<Engines> {
    let Some(path) = &args.data_dir else {
        let kafka = args.kafka();
        let source = kafka_source(args, &kafka);
        let reader = Box::new(KafkaReader::connect(&kafka)?);
        return Ok(Engines { reader, store: UsageStore::connect(&args.store.config()), source });
    };
    let data_dir = DataDir::open(path)?;
    let reader = EmbeddedReader::open(&data_dir.log(), &args.kafka_group)?;
    let source = embedded_source(args, reader.partition_count());
    let store = UsageStore::connect(&data_dir.running_store(&args.store)?);
    Ok(Engines { reader: Box::new(reader), store, source })
}

fn kafka_source(args: &EngineArgs, kafka: &KafkaConfig) -> Source {
    Source {
        topic: kafka.topic.clone(),
        epoch: args.topic_epoch,
        partition_count: kafka.partitions,
    }
}

/// Only the store.
pub async fn open_store(args: &EngineArgs) -> anyhow::Result<UsageStore> {
    let config = match &args.data_dir {
        None => args.store.config(),
        Some(path) => DataDir::open(path)?.running_store(&args.store)?,
    };
    answering(UsageStore::connect(&config)).await
}

/// Says what to do when nobody answers, before anything is begun.
async fn answering(store: UsageStore) -> anyhow::Result<UsageStore> {
    store.ping().await.context(
        "ClickHouse does not answer as it should: start it (or the stack of the data directory), or correct CLICKHOUSE_URL, CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    )?;
    Ok(store)
}

/// The engines with a log to write to. An embedded log has one writer, so its stack has to be stopped;
/// the engine of its store, which is then stopped as well, is started here. Blocks.
pub fn open_for_publishing(args: &EngineArgs) -> anyhow::Result<PublishingEngines> {
    let Some(path) = &args.data_dir else {
        let kafka = args.kafka();
        let source = kafka_source(args, &kafka);
        // With another number of partitions than the topic's, records would go where no copy of them is
        // looked for; only the reader asks the brokers.
        KafkaReader::connect(&kafka)?;
        let producer = Arc::new(KafkaProducer::connect(&kafka)?);
        let store = UsageStore::connect(&args.store.config());
        return Ok(PublishingEngines { producer, store, source, engine: None });
    };
    let data_dir = DataDir::open(path)?;
    let log = open_log(&data_dir.log(), &args.kafka_group)?;
    let source = embedded_source(args, log.producer().partition_count());
    let (config, engine) = data_dir.own_store(&args.store)?;
    let producer = Arc::new(log.producer());
    Ok(PublishingEngines { producer, store: UsageStore::connect(&config), source, engine })
}

fn open_log(path: &Path, group: &str) -> anyhow::Result<EmbeddedLog> {
    let partitions = EmbeddedReader::open(path, group)?.partition_count();
    let options = EmbeddedLogOptions {
        // What has expired is for the stack to delete: a damaged store may have to be restored from it.
        retention: Duration::MAX,
        retained_bytes_max: u64::MAX,
        ..EmbeddedLogOptions::new(path, partitions, Arc::new(SystemClock))
    };
    EmbeddedLog::open(options).context(
        "records can only be published while the stack on this data directory is stopped: stop it, run this again, and start it",
    )
}

fn embedded_source(args: &EngineArgs, partition_count: u16) -> Source {
    Source { topic: EMBEDDED_TOPIC.to_owned(), epoch: args.topic_epoch, partition_count }
}

impl PublishingEngines {
    /// Stops what was started. Blocks.
    pub fn close(self) -> anyhow::Result<()> {
        let Self { producer, store: _, source: _, engine } = self;
        drop(producer);
        stop(engine.as_ref())
    }
}

impl StartedHere {
    /// Stops it. Blocks.
    pub fn stop(&self) -> anyhow::Result<()> {
        stop(self.engine.as_ref())
    }
}

fn stop(engine: Option<&EmbeddedClickHouse>) -> anyhow::Result<()> {
    if let Some(engine) = engine {
        engine.stop().context("the ClickHouse engine did not stop")?;
    }
    Ok(())
}
