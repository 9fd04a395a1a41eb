//! poll → decode → dedup → batch → insert → commit
//!
//! Every event that the API has accepted becomes exactly one row. What is decided is a function of
//! the log alone, so a crash at any moment, or two consumers at once, write the same rows again.

pub mod batch;
pub mod config;
pub mod conflict;
pub mod dead_letter;
pub mod decode;
pub mod dedup;
pub mod error;
mod fit;
pub mod insert;
pub mod liveness;
mod metrics;
pub mod partition;
pub mod pauses;
mod pipeline;
pub mod rebalance;
pub mod start;
mod too_large;
mod trusted_time;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod simulation;

pub use config::ConsumerConfig;
pub use error::ConsumerError;
pub use liveness::ConsumerHealth;

use event_log::EventLogConsumer;
use pipeline::{Parts, Pipeline};
use service_kit::clock::Clock;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use usage_store::UsageStore;

/// The service, put together from its engines.
pub struct EventConsumer {
    pub log: Box<dyn EventLogConsumer>,
    pub store: UsageStore,
    pub config: ConsumerConfig,
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for EventConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventConsumer")
            .field("store", &self.store)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl EventConsumer {
    /// Consumes until `shutdown`, and then finishes the batch that is open, within the drain time.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        let (_, running) = self.start(shutdown)?;
        running.await
    }

    /// Starts the consumer's thread. Returns what probes ask, and the wait for its end; dropping
    /// the latter ends the consumer too.
    ///
    /// # Panics
    /// When it is not called within a tokio runtime, which does the inserts.
    pub fn start(
        self,
        shutdown: CancellationToken,
    ) -> Result<
        (ConsumerHealth, impl Future<Output = Result<(), ConsumerError>> + Send + use<>),
        ConsumerError,
    > {
        let Self { log, store, config, clock } = self;
        config.validate()?;
        let health = ConsumerHealth::new(config.stall_timeout, Instant::now());
        let shutdown = shutdown.child_token();
        let parts = Parts {
            log,
            store,
            config,
            clock,
            runtime: Handle::current(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let (ended, end) = oneshot::channel();
        let thread = move || {
            let end_of_health = EndOfHealth(parts.health.clone());
            // Whoever waits for the end finds the log released and the probe failing.
            let outcome = {
                let mut pipeline = Pipeline::new(parts);
                pipeline.run()
            };
            drop(end_of_health);
            // Nobody listens any more when the wait was dropped.
            drop(ended.send(outcome));
        };
        std::thread::Builder::new()
            .name("event-consumer".to_owned())
            .spawn(thread)
            .map_err(ConsumerError::Thread)?;
        let stop = shutdown.drop_guard();
        let running = async move {
            let _stop = stop;
            end.await.unwrap_or(Err(ConsumerError::Panicked))
        };
        Ok((health, running))
    }
}

/// Fails the probe when the thread ends, a panic included.
struct EndOfHealth(ConsumerHealth);

impl Drop for EndOfHealth {
    fn drop(&mut self) {
        self.0.end();
    }
}
