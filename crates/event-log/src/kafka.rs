//! The Kafka transport: configuration, and the one place where Kafka's errors are classed.

mod args;
mod consumer;
mod fetched;
mod producer;
mod reader;
mod rebalances;
mod topic;

pub use args::TopicArgs;
pub use consumer::KafkaConsumer;
pub use producer::KafkaProducer;
pub use reader::KafkaReader;
pub use topic::ensure_topic;

use crate::LogError;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::fmt;
use std::time::Duration;

/// How to reach the topic, and what it has to be like.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, several of them separated by commas.
    pub brokers: String,
    pub topic: String,
    /// Fixed for the life of the topic: it decides which partition owns an event.
    pub partitions: u16,
    /// Used when the topic is created here.
    pub replication_factor: u16,
    /// Accepts a topic whose records are on one broker only. For a single node; losing it loses events.
    pub allow_single_replica: bool,
    /// How long records are kept, used when the topic is created here.
    pub retention: Duration,
    /// The consumer group.
    pub group: String,
    /// A name that a member keeps over restarts, so that a quick restart moves no partitions.
    pub group_instance_id: Option<String>,
    /// After how long a silent member loses its partitions; 6 seconds to 30 minutes by the broker's default.
    /// Another one is at work that long, and a heartbeat and a rebuild of the index, after a crash.
    pub session_timeout: Duration,
    /// Which life of the topic this is; part of every record and row version.
    pub topic_epoch: u16,
    /// More properties of librdkafka, such as `security.protocol` and `sasl.password`. The ones
    /// that delivery depends on are refused.
    pub properties: Vec<(String, String)>,
}

impl KafkaConfig {
    /// `usage.events` with 12 partitions on three brokers, kept for 7 days, read by `event-consumer`.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: "usage.events".to_owned(),
            partitions: 12,
            replication_factor: 3,
            allow_single_replica: false,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            group: "event-consumer".to_owned(),
            group_instance_id: None,
            session_timeout: Duration::from_secs(6),
            topic_epoch: 1,
            properties: Vec::new(),
        }
    }

    /// Our `settings` over the configured properties; a property that would change one is refused.
    fn client(&self, settings: &[(&str, &str)]) -> Result<ClientConfig, LogError> {
        let mut client = ClientConfig::new();
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        let common = [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", "tallymark"),
            // A mistyped or deleted topic must not come back with the broker's default replication.
            ("allow.auto.create.topics", "false"),
            // An outage of seconds must not cost up to 10 more to notice its end.
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
            // A client that was started while brokers failed may have been told of a topic without its
            // partitions. With the default it would not ask again for 5 minutes.
            ("topic.metadata.refresh.interval.ms", "5000"),
        ];
        for (name, value) in common.iter().chain(settings) {
            if self.properties.iter().any(|(property, _)| property == name) {
                let detail = format!("the property `{name}` is not free to choose; remove it");
                return Err(LogError::Contract(detail));
            }
            client.set(*name, *value);
        }
        client.set_log_level(RDKafkaLogLevel::Warning);
        Ok(client)
    }
}

/// The values of properties may be secrets; only their names are shown.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            brokers,
            topic,
            partitions,
            replication_factor,
            allow_single_replica,
            retention,
            group,
            group_instance_id,
            session_timeout,
            topic_epoch,
            properties,
        } = self;
        let names: Vec<_> = properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", brokers)
            .field("topic", topic)
            .field("partitions", partitions)
            .field("replication_factor", replication_factor)
            .field("allow_single_replica", allow_single_replica)
            .field("retention", retention)
            .field("group", group)
            .field("group_instance_id", group_instance_id)
            .field("session_timeout", session_timeout)
            .field("topic_epoch", topic_epoch)
            .field("properties", &names)
            .finish()
    }
}

/// How long one question to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends librdkafka's log lines to ours.
#[derive(Debug)]
struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }
}

/// Connection errors heal by themselves, so they are warnings; what they cost is counted elsewhere.
fn log_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}

/// Decides once whether an operation may be tried again.
fn classify(operation: &'static str, error: KafkaError) -> LogError {
    use RDKafkaErrorCode as Code;
    let permanent = matches!(
        error,
        KafkaError::ClientConfig(..)
            | KafkaError::ClientCreation(_)
            | KafkaError::MessageConsumptionFatal(_)
            | KafkaError::Nul(_)
    );
    match error.rdkafka_error_code() {
        _ if permanent => LogError::Permanent { operation, source: error.into() },
        Some(
            Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::RebalanceInProgress
            | Code::FencedInstanceId
            | Code::AssignmentLost
            | Code::Fenced,
        ) => LogError::Fenced,
        // A record that cannot be read must stop the partition: librdkafka goes on after it.
        Some(
            Code::BadMessage
            | Code::BadCompression
            | Code::InvalidMessage
            | Code::UnsupportedCompressionType
            | Code::NotImplemented
            | Code::UnsupportedFeature
            | Code::UnsupportedVersion
            | Code::InvalidArgument
            | Code::InvalidConfig
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InconsistentGroupProtocol
            | Code::PolicyViolation
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::Fatal,
        ) => LogError::Permanent { operation, source: error.into() },
        _ => LogError::Transient { operation, source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_reach_the_client_but_cannot_weaken_delivery() {
        let mut config = KafkaConfig::new("localhost:9092");
        config.properties = vec![("socket.nagle.disable".to_owned(), "true".to_owned())];
        let client = config.client(&[("acks", "all")]).unwrap();
        assert_eq!(client.get("socket.nagle.disable"), Some("true"));
        assert_eq!(client.get("acks"), Some("all"));
        for name in ["acks", "bootstrap.servers", "allow.auto.create.topics"] {
            config.properties = vec![(name.to_owned(), "1".to_owned())];
            assert!(matches!(config.client(&[("acks", "all")]), Err(LogError::Contract(_))));
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut config = KafkaConfig::new("localhost:9092");
        config.properties = vec![("sasl.password".to_owned(), "hunter2".to_owned())];
        let printed = format!("{config:?}");
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn errors_are_classed() {
        use RDKafkaErrorCode as Code;
        let class = |code| classify("testing", KafkaError::ConsumerCommit(code));
        assert!(matches!(class(Code::IllegalGeneration), LogError::Fenced));
        assert!(matches!(class(Code::UnknownMemberId), LogError::Fenced));
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::NotCoordinator] {
            assert!(matches!(class(code), LogError::Transient { .. }), "{code:?}");
        }
        for code in [Code::BadMessage, Code::GroupAuthorizationFailed] {
            assert!(matches!(class(code), LogError::Permanent { .. }), "{code:?}");
        }
        let fatal = KafkaError::MessageConsumptionFatal(Code::FencedInstanceId);
        assert!(matches!(classify("testing", fatal), LogError::Permanent { .. }));
    }
}
