//! What `standalone` leaves in its data directory: where its parts are, and their secrets.

use anyhow::{Context as _, bail};
use event_consumer::config::StoreArgs;
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::libchdb;
use service_kit::secret::Secret;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use usage_store::UsageStoreConfig;

/// The user of the services.
const SERVICE_USER: &str = "tallymark";

/// The directory of a stack on embedded engines.
#[derive(Clone, Debug)]
pub(super) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize().with_context(|| {
            format!("there is no data directory {}; name the one of the stack", path.display())
        })?;
        let engines = std::fs::read_to_string(path.join("engines")).unwrap_or_default();
        match engines.trim() {
            "embedded" => Ok(Self { path }),
            "servers" => bail!(
                "{} belongs to a stack on servers; leave out --data-dir, and set KAFKA_BROKERS and CLICKHOUSE_URL",
                path.display()
            ),
            _ => bail!("{} is not the data directory of a stack", path.display()),
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The store of the running stack; another server when its password is given.
    pub(super) fn running_store(&self, args: &StoreArgs) -> anyhow::Result<UsageStoreConfig> {
        if !args.clickhouse_password.expose().is_empty() {
            return Ok(args.config());
        }
        let facts = read_env(&self.path.join("demo.env"));
        let url = facts.get("CLICKHOUSE_URL").with_context(|| {
            format!("{} has no demo.env; start the stack first", self.path.display())
        })?;
        let (url, database) = split_reader_url(url)
            .with_context(|| format!("CLICKHOUSE_URL of demo.env is not an address: {url}"))?;
        let password = self.secret("CLICKHOUSE_SERVICE_PASSWORD")?;
        Ok(UsageStoreConfig::new(url, database, SERVICE_USER, password))
    }

    /// The store of a stopped stack, whose engine is started; another server when its password is given.
    pub(super) fn own_store(
        &self,
        args: &StoreArgs,
    ) -> anyhow::Result<(UsageStoreConfig, Option<EmbeddedClickHouse>)> {
        if !args.clickhouse_password.expose().is_empty() {
            return Ok((args.config(), None));
        }
        let service_password = self.secret("CLICKHOUSE_SERVICE_PASSWORD")?;
        let reader_password = self.secret("CLICKHOUSE_READER_PASSWORD")?;
        let engine = EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
            binary: None,
            library: libchdb::ensure(true)?,
            data_dir: self.path.join("clickhouse"),
            listen: None,
            service_password: service_password.expose().to_owned(),
            reader_password: reader_password.expose().to_owned(),
            reader_database: args.clickhouse_database.clone(),
            max_memory: None,
            log_file: self.path.join("clickhouse.log"),
            restart: false,
        })?;
        let config = UsageStoreConfig::new(
            engine.url(),
            &args.clickhouse_database,
            engine.service_user(),
            service_password,
        );
        Ok((config, Some(engine)))
    }

    fn secret(&self, name: &str) -> anyhow::Result<Secret> {
        let path = self.path.join("secrets.env");
        let secret = read_env(&path).remove(name);
        secret.map(Secret::new).with_context(|| {
            format!(
                "{} cannot be read, or has no {name}; run this as the user of the stack",
                path.display()
            )
        })
    }
}

/// Reads lines of `NAME=value`, with or without single quotes around the value.
fn read_env(path: &Path) -> HashMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

/// `http://user:password@host:port/?database=name` as the address and the database.
fn split_reader_url(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let (_, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (address, query) = rest.split_once('/')?;
    let (_, database) = query.split_once("database=")?;
    Some((format!("{scheme}://{address}"), database.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_taken_without_the_readers_name() {
        let url = "http://tallymark_reader:secret@127.0.0.1:8123/?database=tallymark";
        let found = split_reader_url(url).unwrap();
        assert_eq!(found, ("http://127.0.0.1:8123".to_owned(), "tallymark".to_owned()));
    }

    #[test]
    fn other_directories_are_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let message = || DataDir::open(directory.path()).unwrap_err().to_string();
        assert!(message().contains("not the data directory"));
        std::fs::write(directory.path().join("engines"), "servers\n").unwrap();
        assert!(message().contains("KAFKA_BROKERS"));
        std::fs::write(directory.path().join("engines"), "embedded\n").unwrap();
        assert!(DataDir::open(directory.path()).is_ok());
    }
}
