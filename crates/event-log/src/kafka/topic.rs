//! Creates the topic when it is absent, and refuses one that would lose or double usage.

use super::{KafkaConfig, LogContext, REQUEST_TIMEOUT, classify};
use crate::LogError;
use fault_injection::{Sabotage, sabotaged};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a new topic may take to be listed with its partitions. Their leaders may come later: the
/// producer and the consumer wait for those themselves.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
const CREATION_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Smallest accepted `max.message.bytes`: the producer's `message.max.bytes`, which bounds its batches.
const MESSAGE_BYTES_MIN: u64 = 1_000_000;

/// Makes sure that the topic exists and keeps the contract of docs/log-format.md.
///
/// `Transient` while no broker answers; `Contract`, with what to change, when a rule is broken.
pub async fn ensure_topic(config: &KafkaConfig) -> Result<(), LogError> {
    let client = config.client(&[])?;
    let admin = AdminClient::from_config_and_context(&client, LogContext)
        .map_err(|error| classify("connecting to Kafka", error))?;
    let admin = Arc::new(admin);
    let replicas = match replica_counts(&admin, config).await? {
        Some(replicas) => replicas,
        None => {
            create(&admin, config).await?;
            await_creation(&admin, config).await?
        }
    };
    let settings = settings(&admin, config).await?;
    let broken = broken_rules(config, &replicas, &settings);
    if broken.is_empty() {
        return Ok(());
    }
    Err(LogError::Contract(format!("`{}`: {}", config.topic, broken.join("; "))))
}

type Admin = Arc<AdminClient<LogContext>>;

/// The number of replicas of each partition; `None` when there is no such topic.
async fn replica_counts(
    admin: &Admin,
    config: &KafkaConfig,
) -> Result<Option<Vec<usize>>, LogError> {
    let operation = "reading the topic's partitions";
    let (admin, topic) = (Arc::clone(admin), config.topic.clone());
    let fetch = move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(found.partitions().iter().map(|p| p.replicas().len()).collect())),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::LeaderNotAvailable,
            ) => Ok(None),
            Some(code) => Err(rdkafka::error::KafkaError::MetadataFetch(code)),
        }
    };
    match tokio::task::spawn_blocking(fetch).await {
        Ok(found) => found.map_err(|error| classify(operation, error)),
        Err(panicked) => Err(LogError::Permanent { operation, source: panicked.into() }),
    }
}

async fn create(admin: &Admin, config: &KafkaConfig) -> Result<(), LogError> {
    let retention = config.retention.as_millis().to_string();
    let in_sync = config.replication_factor.saturating_sub(1).clamp(1, 2).to_string();
    let replication = TopicReplication::Fixed(i32::from(config.replication_factor));
    let topic = NewTopic::new(&config.topic, i32::from(config.partitions), replication)
        // Retention by a sender's clock would delete too early or never.
        .set("message.timestamp.type", timestamp_type())
        // An acknowledged record is on two brokers of three, and one may be down.
        .set("min.insync.replicas", &in_sync)
        // An unclean leader drops acknowledged records.
        .set("unclean.leader.election.enable", "false")
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        // Keep what the producer compressed.
        .set("compression.type", "producer");
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let created = admin.create_topics([&topic], &options).await;
    let created = created.map_err(|error| classify("creating the topic", error))?;
    match created.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => {
            Err(LogError::Contract(format!(
                "`{}` cannot have {} replicas on this cluster; add brokers, or allow a single replica \
                 and ask for one",
                config.topic, config.replication_factor
            )))
        }
        // Somebody else was faster; theirs is checked like any other.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)) | Ok(_)) | None => Ok(()),
        Some(Err((_, code))) => {
            Err(classify("creating the topic", rdkafka::error::KafkaError::AdminOp(code)))
        }
    }
}

/// Who says when a record was written.
fn timestamp_type() -> &'static str {
    if sabotaged(Sabotage::RecordTimeIsEventTime) { "CreateTime" } else { "LogAppendTime" }
}

async fn await_creation(admin: &Admin, config: &KafkaConfig) -> Result<Vec<usize>, LogError> {
    let deadline = Instant::now() + CREATION_TIMEOUT;
    loop {
        match replica_counts(admin, config).await? {
            Some(replicas) if !replicas.is_empty() => return Ok(replicas),
            _ if Instant::now() < deadline => tokio::time::sleep(CREATION_POLL_INTERVAL).await,
            _ => {
                return Err(LogError::Transient {
                    operation: "waiting for the new topic",
                    source: format!("no partitions after {CREATION_TIMEOUT:?}").into(),
                });
            }
        }
    }
}

async fn settings(
    admin: &Admin,
    config: &KafkaConfig,
) -> Result<HashMap<String, String>, LogError> {
    let operation = "reading the topic's settings";
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let topic = ResourceSpecifier::Topic(&config.topic);
    let described = admin.describe_configs([&topic], &options).await;
    let described = described.map_err(|error| classify(operation, error))?;
    let mut settings = HashMap::new();
    for resource in described {
        let resource = resource
            .map_err(|code| classify(operation, rdkafka::error::KafkaError::AdminOp(code)))?;
        let entries = resource.entries.into_iter();
        settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
    }
    Ok(settings)
}

/// Each broken rule as a sentence that says what to change.
fn broken_rules(
    config: &KafkaConfig,
    replicas: &[usize],
    settings: &HashMap<String, String>,
) -> Vec<String> {
    let mut broken = Vec::new();
    if replicas.len() != usize::from(config.partitions) {
        broken.push(format!(
            "it has {} partitions and {} were configured; configure the count it has, because \
             another one sends copies of an event to another partition",
            replicas.len(),
            config.partitions
        ));
    }
    let get = |name: &str| settings.get(name).map_or("", String::as_str);
    let at_least = |name: &str, least: u64| get(name).parse().is_ok_and(|n: u64| n >= least);
    if !config.allow_single_replica {
        let fewest = replicas.iter().min().copied().unwrap_or(0);
        if fewest < 3 {
            broken.push(format!("a partition has {fewest} replicas; give every one at least 3"));
        }
        if !at_least("min.insync.replicas", 2) {
            broken.push(format!("min.insync.replicas is {}; set 2", get("min.insync.replicas")));
        }
    }
    for (name, wanted) in [
        ("message.timestamp.type", timestamp_type()),
        ("unclean.leader.election.enable", "false"),
        ("cleanup.policy", "delete"),
    ] {
        if get(name) != wanted {
            broken.push(format!("{name} is {}; set {wanted}", get(name)));
        }
    }
    if !at_least("max.message.bytes", MESSAGE_BYTES_MIN) {
        let found = get("max.message.bytes");
        broken.push(format!("max.message.bytes is {found}; set {MESSAGE_BYTES_MIN} or more"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HashMap<String, String> {
        let pairs = [
            ("min.insync.replicas", "2"),
            ("message.timestamp.type", "LogAppendTime"),
            ("unclean.leader.election.enable", "false"),
            ("cleanup.policy", "delete"),
            ("max.message.bytes", "1000000"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn broken(
        config: &KafkaConfig,
        replicas: &[usize],
        change: Option<(&str, &str)>,
    ) -> Vec<String> {
        let mut settings = good();
        settings.extend(change.map(|(name, value)| (name.to_owned(), value.to_owned())));
        broken_rules(config, replicas, &settings)
    }

    #[test]
    fn a_topic_that_keeps_the_contract_is_accepted() {
        let config = KafkaConfig::new("localhost:9092");
        assert_eq!(broken(&config, &[3; 12], None), Vec::<String>::new());
    }

    #[test]
    fn each_broken_rule_is_named_with_what_to_change() {
        let config = KafkaConfig::new("localhost:9092");
        let cases: [(&[usize], _, &str); 8] = [
            (&[3; 11], None, "it has 11 partitions and 12 were configured"),
            (&[3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2], None, "has 2 replicas"),
            (&[3; 12], Some(("min.insync.replicas", "1")), "set 2"),
            (&[3; 12], Some(("message.timestamp.type", "CreateTime")), "set LogAppendTime"),
            (&[3; 12], Some(("unclean.leader.election.enable", "true")), "set false"),
            (&[3; 12], Some(("cleanup.policy", "compact")), "set delete"),
            (&[3; 12], Some(("max.message.bytes", "999999")), "set 1000000 or more"),
            (&[3; 12], Some(("cleanup.policy", "compact,delete")), "set delete"),
        ];
        for (replicas, change, expected) in cases {
            let broken = broken(&config, replicas, change);
            assert!(broken.len() == 1 && broken[0].contains(expected), "{expected}: {broken:?}");
        }
    }

    #[test]
    fn a_single_replica_is_allowed_explicitly_and_nothing_else_with_it() {
        let config =
            KafkaConfig { allow_single_replica: true, ..KafkaConfig::new("localhost:9092") };
        assert!(broken(&config, &[1; 12], Some(("min.insync.replicas", "1"))).is_empty());
        assert_eq!(broken(&config, &[1; 11], Some(("cleanup.policy", "compact"))).len(), 2);
    }
}
