//! The flags that name a topic, the same for every program that uses one.

use super::KafkaConfig;
use service_kit::duration::parse_duration;
use service_kit::secret::Secret;
use std::time::Duration;

/// Where the events are.
#[derive(clap::Args, Clone, Debug)]
pub struct TopicArgs {
    /// Bootstrap servers of Apache Kafka, host:port separated by commas
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka_brokers: String,
    /// Topic of the events; created when it does not exist
    #[arg(long, env = "KAFKA_TOPIC", default_value = "usage.events")]
    pub kafka_topic: String,
    /// Partitions of the topic, fixed for its life
    #[arg(long, env = "KAFKA_PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub kafka_partitions: u16,
    /// Copies of each record
    #[arg(long, env = "KAFKA_REPLICATION_FACTOR", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=15))]
    pub kafka_replication_factor: u16,
    /// Work on a topic with a single copy of each record, which a lost disk loses
    #[arg(long, env = "KAFKA_ALLOW_SINGLE_REPLICA", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub kafka_allow_single_replica: bool,
    /// How long records are kept, when the topic is created here
    #[arg(long, env = "KAFKA_RETENTION", default_value = "7d", value_parser = parse_duration)]
    pub kafka_retention: Duration,
    /// Further librdkafka property, such as `security.protocol=SASL_SSL`; may be repeated
    #[arg(long = "kafka-property", env = "KAFKA_PROPERTIES", value_delimiter = ';', value_parser = property, hide_env_values = true)]
    pub kafka_properties: Vec<(String, Secret)>,
}

fn property(text: &str) -> Result<(String, Secret), String> {
    let (name, value) = text.split_once('=').ok_or("a property is written name=value")?;
    Ok((name.trim().to_owned(), Secret::new(value)))
}

impl TopicArgs {
    /// The topic of `topic_epoch`, and no more than the default group.
    pub fn config(&self, topic_epoch: u16) -> KafkaConfig {
        let Self {
            kafka_brokers,
            kafka_topic,
            kafka_partitions,
            kafka_replication_factor,
            kafka_allow_single_replica,
            kafka_retention,
            kafka_properties,
        } = self;
        KafkaConfig {
            topic: kafka_topic.clone(),
            partitions: *kafka_partitions,
            replication_factor: *kafka_replication_factor,
            allow_single_replica: *kafka_allow_single_replica,
            retention: *kafka_retention,
            topic_epoch,
            properties: kafka_properties
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            ..KafkaConfig::new(kafka_brokers)
        }
    }
}
