//! secrets → engines → demo → services: a whole Tallymark on one machine, in one process or in several.

mod demo;
mod embedded;
pub mod options;
mod parts;
mod secrets;
mod servers;
mod supervisor;

pub use embedded::ServiceConfigs;

use anyhow::{Context as _, bail};
use options::{Engines, Options};
use secrets::Secrets;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the stack until SIGINT or SIGTERM. `configs` are for services in this process; separate ones
/// read their own from the environment, which they inherit.
pub async fn run(options: Options, configs: ServiceConfigs) -> anyhow::Result<ExitCode> {
    let data_dir = data_dir(&options)?;
    let secrets = Secrets::load_or_create(&data_dir)?;
    match options.engines {
        Engines::Embedded => {
            if options.urls.kafka_brokers.is_some() || options.urls.database_url.is_some() {
                tracing::warn!(
                    "KAFKA_BROKERS and DATABASE_URL are not used by embedded engines; start with --engines servers to use them"
                );
            }
            embedded::run(&options, &data_dir, &secrets, configs).await
        }
        Engines::Servers => servers::run(&options, &data_dir, &secrets).await,
    }
}

/// The data directory, made if need be, and only ever used with one set of engines: a store that
/// holds the events of one log must not be filled from another.
fn data_dir(options: &Options) -> anyhow::Result<PathBuf> {
    let engines = options.engines;
    let path = options.data_dir.clone().unwrap_or_else(|| engines.default_data_dir().into());
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    // The engines change their working directory, and child processes get paths from us.
    let path = path.canonicalize()?;
    let marker = path.join("engines");
    match std::fs::read_to_string(&marker) {
        Ok(found) if found.trim() != engines.name() => bail!(
            "{} belongs to a stack on {} engines; set TALLYMARK_DATA_DIR to another directory",
            path.display(),
            found.trim()
        ),
        Ok(_) => {}
        Err(_) => std::fs::write(&marker, format!("{}\n", engines.name()))?,
    }
    Ok(path)
}
