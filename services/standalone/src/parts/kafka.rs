//! Apache Kafka, one broker, fetched and started here.

use crate::options::Options;
use crate::supervisor::Supervised;
use anyhow::Context as _;
use local_engines::kafka::{Kafka, KafkaOptions};
use std::path::Path;

/// The brokers to use, and the one that was started here, if any.
pub(crate) fn kafka(
    options: &Options,
    data_dir: &Path,
) -> anyhow::Result<(String, Option<Box<dyn Supervised>>)> {
    if let Some(brokers) = &options.urls.kafka_brokers {
        return Ok((brokers.clone(), None));
    }
    let kafka = Kafka::start(KafkaOptions::new(data_dir.join("kafka")))
        .context("cannot run Apache Kafka")?;
    Ok((kafka.bootstrap(), Some(Box::new(kafka))))
}

impl Supervised for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn pid(&self) -> u32 {
        Kafka::pid(self, 0).unwrap_or(0)
    }

    fn is_running(&mut self) -> bool {
        Kafka::is_running(self, 0)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        Ok(Kafka::restart(self, 0)?)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        Ok(Kafka::stop(self)?)
    }
}
