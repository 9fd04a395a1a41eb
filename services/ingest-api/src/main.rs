//! The process: arguments → telemetry → one command → exit code.

use ingest_api::IngestApi;
use ingest_api::config::{Cli, Command, ServeArgs};
use ingest_api::start::{connect_database, connect_kafka};
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::lifecycle::Lifecycle;
use service_kit::listen::bind;
use service_kit::telemetry;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Serve(args) => serve(*args).await,
        Command::Admin(command) => {
            let report = command.run(SystemClock.now()).await?;
            #[expect(clippy::print_stdout, reason = "what a command says is for its caller")]
            {
                println!("{report}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let ServeArgs {
        listen,
        address_file,
        log_format,
        log,
        api_key_pepper,
        startup_timeout,
        database,
        kafka,
        serve,
    } = args;
    telemetry::init(log_format, &log);
    let config_store = connect_database(database.database_url.expose(), startup_timeout).await?;
    let producer = connect_kafka(&kafka.config(serve.topic_epoch), startup_timeout).await?;
    let listener = bind(listen, address_file.as_deref()).await?;
    // Open requests may take the drain time, and then the log as long again.
    let limit = serve.drain_timeout * 2 + Duration::from_secs(5);
    let api = IngestApi {
        producer: Arc::new(producer),
        config_store,
        pepper: api_key_pepper,
        config: serve,
        clock: Arc::new(SystemClock),
    };
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("ingest-api", api.run(listener, lifecycle.shutdown_token()));
    Ok(lifecycle.run(limit).await)
}
