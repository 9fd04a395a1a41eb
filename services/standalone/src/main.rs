//! The `standalone` program.

use clap::Parser;
use event_consumer::config::ConsumerArgs;
use ingest_api::ServeConfig;
use service_kit::lifecycle::chain;
use service_kit::telemetry;
use standalone::ServiceConfigs;
use standalone::options::Options;
use std::process::ExitCode;

/// The flags of the stack, and those of the API in it.
#[derive(Debug, Parser)]
#[command(name = "standalone", version, about = "Runs a whole Tallymark on this machine")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    serve: ServeConfig,
}

/// The flags of the consumer. Some have the names of flags of the API, so they come from the
/// environment alone, where both services read the same variables.
#[derive(Debug, Parser)]
struct ConsumerEnvironment {
    #[command(flatten)]
    consumer: ConsumerArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { options, serve } = Arguments::parse();
    let ConsumerEnvironment { consumer } = ConsumerEnvironment::parse_from(["standalone"]);
    // What both services have to agree on is said once.
    let consumer = ConsumerArgs {
        topic_epoch: serve.topic_epoch,
        max_timestamp_age: serve.max_timestamp_age,
        drain_timeout: serve.drain_timeout,
        ..consumer
    };
    telemetry::init(options.log_format, &options.log);
    match standalone::run(options, ServiceConfigs { api: serve, consumer }).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "cannot run");
            ExitCode::FAILURE
        }
    }
}
