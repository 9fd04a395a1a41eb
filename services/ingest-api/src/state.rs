//! What all requests share.

use crate::body::BodyLimits;
use crate::byte_budget::ByteBudget;
use crate::config::ServeConfig;
use crate::rate_limit::EventRateLimiter;
use config_store::KeyCache;
use event_log::EventLogProducer;
use metering::ValidationRules;
use service_kit::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The state behind every handler.
#[derive(Debug)]
pub struct ApiState {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: KeyCache,
    pub(crate) producer: Arc<dyn EventLogProducer>,
    pub(crate) rules: ValidationRules,
    pub(crate) body_limits: BodyLimits,
    pub(crate) budget: Arc<ByteBudget>,
    pub(crate) rate_limiter: EventRateLimiter,
    pub(crate) publish_timeout: Duration,
    pub(crate) topic_epoch: u16,
    /// Cancelled when the producer has failed for good.
    pub(crate) failed: CancellationToken,
    /// Cancelled when the process is to end.
    pub(crate) shutdown: CancellationToken,
}

impl ApiState {
    pub fn new(
        config: &ServeConfig,
        keys: KeyCache,
        producer: Arc<dyn EventLogProducer>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            keys,
            producer,
            rules: config.rules(),
            body_limits: config.body_limits(),
            budget: ByteBudget::new(config.in_flight_bytes()),
            rate_limiter: EventRateLimiter::new(config.rate_limit_events, config.burst()),
            publish_timeout: config.publish_timeout,
            topic_epoch: config.topic_epoch,
            failed: CancellationToken::new(),
            shutdown,
        })
    }

    /// Why requests should go to another process, if so.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.shutdown.is_cancelled() {
            return Some("shutting down".to_owned());
        }
        if self.failed.is_cancelled() {
            return Some("the producer has failed for good".to_owned());
        }
        // Once the keys were read, an outage of the database is no reason to stop: cached keys work on.
        if self.keys.confirmed_at().is_none() {
            return Some("the configuration database has not answered yet".to_owned());
        }
        self.producer.unready()
    }
}
