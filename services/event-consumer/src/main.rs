//! The process: arguments → telemetry → one command → exit code.

use event_consumer::config::{Cli, Command};
use event_consumer::start;
use service_kit::telemetry;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let logging = match &cli.command {
        Command::Serve(args) => &args.logging,
        Command::Migrate(args) => &args.logging,
    };
    telemetry::init(logging.log_format, &logging.log);
    match &cli.command {
        Command::Serve(args) => Ok(start::serve(args).await?),
        Command::Migrate(args) => {
            start::migrate(args).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
