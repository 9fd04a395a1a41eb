//! `authenticate → rate_limit → validate → publish`: usage events from HTTP to the durable log.
//!
//! A request is answered with success only once the log holds every event that it lists as accepted.

mod accept;
pub mod admin;
mod answer;
mod authenticate;
mod body;
mod byte_budget;
pub mod config;
mod media_type;
mod metrics;
mod observe;
pub mod openapi;
pub mod problem;
mod publish;
mod rate_limit;
mod routes;
pub mod start;
mod state;

pub use config::ServeConfig;
pub use routes::router;
pub use state::ApiState;

use config_store::{CacheOptions, ConfigStore, KeyCache, Pepper};
use event_log::{EventLogProducer, PublishError};
use service_kit::clock::Clock;
use service_kit::http_server;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The service, put together from its engines.
#[derive(Debug)]
pub struct IngestApi {
    pub producer: Arc<dyn EventLogProducer>,
    pub config_store: ConfigStore,
    /// What API keys are hashed with.
    pub pepper: Pepper,
    pub config: ServeConfig,
    pub clock: Arc<dyn Clock>,
}

/// Why the service ended before it was asked to, or not cleanly.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("the HTTP server failed")]
    Serve(#[source] io::Error),
    #[error("the producer failed for good; the process has to start again")]
    ProducerFailed,
    #[error(
        "on shutdown, the log did not confirm everything; the clients of those events got no success and send them again"
    )]
    Flush(#[source] PublishError),
}

impl IngestApi {
    /// Serves until `shutdown`; then takes no more requests, finishes the open ones, and waits for the log.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), IngestError> {
        let Self { producer, config_store, pepper, config, clock } = self;
        let keys = KeyCache::new(config_store, pepper, CacheOptions::default(), Arc::clone(&clock));
        let stop = shutdown.child_token();
        let state =
            ApiState::new(&config, keys.clone(), Arc::clone(&producer), clock, stop.clone());
        let failed = state.failed.clone();
        let serve = http_server::serve(listener, router(state), config.http_limits(), stop.clone());
        let watch = async {
            tokio::select! {
                () = failed.cancelled() => stop.cancel(),
                () = stop.cancelled() => {}
            }
        };
        let (served, (), ()) = tokio::join!(serve, keys.follow_changes(stop.clone()), watch);
        served.map_err(IngestError::Serve)?;
        if failed.is_cancelled() {
            return Err(IngestError::ProducerFailed);
        }
        producer.flush(config.drain_timeout).await.map_err(IngestError::Flush)
    }
}
