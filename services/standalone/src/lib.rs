//! secrets → engines → demo → services: a whole Tallymark on one machine, in one process or in several.

mod demo;
mod embedded;
pub mod options;
mod parts;
mod secrets;
mod servers;
mod supervisor;

pub use embedded::ServiceConfigs;

use anyhow::Context as _;
use options::{Engines, Options};
use secrets::Secrets;
use std::process::ExitCode;

/// Runs the stack until SIGINT or SIGTERM. `configs` are for services in this process; separate ones
/// read their own from the environment, which they inherit.
pub async fn run(options: Options, configs: ServiceConfigs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&options.data_dir)
        .with_context(|| format!("cannot create {}", options.data_dir.display()))?;
    // The engines change their working directory, and child processes get paths from us.
    let options = Options { data_dir: options.data_dir.canonicalize()?, ..options };
    let secrets = Secrets::load_or_create(&options.data_dir)?;
    match options.engines {
        Engines::Embedded => embedded::run(&options, &secrets, configs).await,
        Engines::Servers => servers::run(&options, &secrets).await,
    }
}
