//! Connects to the engines when the process starts, for as long as they may take to come up.

use config_store::{ConfigError, ConfigStore, PoolOptions};
use event_log::LogError;
use event_log::kafka::{KafkaConfig, KafkaProducer, ensure_topic};
use service_kit::lifecycle::chain;
use service_kit::retry::Backoff;
use std::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// First and longest delay between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Connects to the configuration database, trying again for up to `limit` while it is away.
pub async fn connect_database(url: &str, limit: Duration) -> Result<ConfigStore, ConfigError> {
    patiently(limit, ConfigError::is_transient, || {
        ConfigStore::connect(url, PoolOptions::default())
    })
    .await
}

/// Checks the topic and starts a producer, trying again for up to `limit` while Kafka is away.
pub async fn connect_kafka(
    config: &KafkaConfig,
    limit: Duration,
) -> Result<KafkaProducer, LogError> {
    patiently(limit, |error| matches!(error, LogError::Transient { .. }), || ensure_topic(config))
        .await?;
    KafkaProducer::connect(config)
}

async fn patiently<T, E: Error>(
    limit: Duration,
    transient: impl Fn(&E) -> bool,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new(DELAYS.0, DELAYS.1);
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let next = Instant::now() + backoff.next_delay();
        if !transient(&error) || next > deadline {
            return Err(error);
        }
        tracing::warn!(error = chain(&error), "not connected yet, trying again");
        tokio::time::sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Debug, thiserror::Error)]
    #[error("transient: {0}")]
    struct Failure(bool);

    async fn attempts(succeed_at: u32, transient: bool) -> (bool, u32) {
        let count = Cell::new(0);
        let result = patiently(
            Duration::from_secs(10),
            |error: &Failure| error.0,
            async || {
                count.set(count.get() + 1);
                if count.get() == succeed_at { Ok(()) } else { Err(Failure(transient)) }
            },
        );
        (result.await.is_ok(), count.get())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_passing_failure_is_tried_again_and_not_for_ever() {
        assert_eq!(attempts(1, true).await, (true, 1));
        assert_eq!(attempts(3, true).await, (true, 3));
        assert_eq!(attempts(3, false).await, (false, 1));
        let start = Instant::now();
        assert!(!attempts(u32::MAX, true).await.0);
        assert!(
            start.elapsed() <= Duration::from_secs(10) && start.elapsed() >= Duration::from_secs(7),
            "{:?}",
            start.elapsed()
        );
    }
}
