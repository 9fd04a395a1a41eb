//! The ClickHouse engine as a child, or a server elsewhere, with the schema applied.

use crate::options::Options;
use crate::secrets::Secrets;
use crate::supervisor::Supervised;
use anyhow::{Context as _, bail};
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::libchdb;
use service_kit::secret::Secret;
use std::path::Path;
use usage_store::UsageStoreConfig;

/// The store to use.
pub(crate) struct ClickHouse {
    /// The engine that was started here, if any.
    pub(crate) part: Option<Box<dyn Supervised>>,
    pub(crate) store: UsageStoreConfig,
    /// Address, read-only user and database in one URL, for people.
    pub(crate) reader_url: String,
}

/// Starts the engine, or takes the server of the options. Blocks; the first time it downloads the engine.
pub(crate) fn clickhouse(
    options: &Options,
    data_dir: &Path,
    secrets: &Secrets,
) -> anyhow::Result<ClickHouse> {
    let urls = &options.urls;
    if let Some(url) = &urls.clickhouse_url {
        let password =
            urls.clickhouse_password.clone().context("CLICKHOUSE_URL needs CLICKHOUSE_PASSWORD")?;
        let store =
            UsageStoreConfig::new(url, &urls.clickhouse_database, &urls.clickhouse_user, password);
        let reader = urls.clickhouse_reader_password.clone().unwrap_or_else(|| Secret::new(""));
        let reader_url =
            reader_url(url, &urls.clickhouse_reader_user, &reader, &urls.clickhouse_database);
        return Ok(ClickHouse { part: None, store, reader_url });
    }
    let engine = EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
        binary: None,
        library: libchdb::ensure(true)?,
        data_dir: data_dir.join("clickhouse"),
        listen: Some(options.clickhouse_port()).filter(|port| *port != 0),
        service_password: secrets.clickhouse_service_password.expose().to_owned(),
        reader_password: secrets.clickhouse_reader_password.expose().to_owned(),
        reader_database: urls.clickhouse_database.clone(),
        max_memory: None,
        log_file: data_dir.join("clickhouse.log"),
        restart: false,
    })?;
    let store = UsageStoreConfig::new(
        engine.url(),
        &urls.clickhouse_database,
        engine.service_user(),
        secrets.clickhouse_service_password.clone(),
    );
    let reader_url = reader_url(
        &engine.url(),
        engine.reader_user(),
        &secrets.clickhouse_reader_password,
        &urls.clickhouse_database,
    );
    Ok(ClickHouse { part: Some(Box::new(engine)), store, reader_url })
}

fn reader_url(url: &str, user: &str, password: &Secret, database: &str) -> String {
    let (scheme, address) = url.split_once("://").unwrap_or(("http", url));
    format!(
        "{scheme}://{user}:{}@{}/?database={database}",
        password.expose(),
        address.trim_end_matches('/')
    )
}

impl Supervised for EmbeddedClickHouse {
    fn name(&self) -> &'static str {
        "embedded-clickhouse"
    }

    fn pid(&self) -> u32 {
        EmbeddedClickHouse::pid(self)
    }

    fn is_running(&mut self) -> bool {
        EmbeddedClickHouse::is_running(self)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        Ok(self.start_again()?)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if EmbeddedClickHouse::stop(self)? {
            Ok(())
        } else {
            bail!("the engine did not end with success")
        }
    }
}
