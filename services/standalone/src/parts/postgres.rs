//! Postgres, started here from the machine's packages.

use crate::options::Options;
use crate::supervisor::Supervised;
use anyhow::Context as _;
use local_engines::postgres::{Postgres, PostgresOptions};
use std::path::Path;

const DATABASE: &str = "tallymark";

/// The database to use, and the server that was started here, if any.
pub(crate) fn postgres(
    options: &Options,
    data_dir: &Path,
) -> anyhow::Result<(String, Option<Box<dyn Supervised>>)> {
    if let Some(url) = &options.urls.database_url {
        return Ok((url.clone(), None));
    }
    let postgres = Postgres::start(PostgresOptions { data_dir: data_dir.join("postgres") })
        .context("cannot run Postgres")?;
    postgres.create_database(DATABASE)?;
    Ok((postgres.url(DATABASE), Some(Box::new(postgres))))
}

impl Supervised for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn pid(&self) -> u32 {
        Postgres::pid(self)
    }

    fn is_running(&mut self) -> bool {
        Postgres::is_running(self)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        Ok(Postgres::restart(self)?)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        Ok(Postgres::stop(self)?)
    }
}
