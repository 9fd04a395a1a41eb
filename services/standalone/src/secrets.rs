//! The secrets of a data directory: made at the first start, kept in a file that only its owner can read.

use anyhow::Context as _;
use service_kit::secret::Secret;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Letters and digits of a generated secret: 32 of 62 are 190 bits.
const LENGTH: usize = 32;

/// What the parts of a local stack authenticate with.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) api_key_pepper: Secret,
    pub(crate) clickhouse_service_password: Secret,
    pub(crate) clickhouse_reader_password: Secret,
}

impl Secrets {
    /// The secrets of `data_dir`, made now if this is its first start.
    pub(crate) fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("secrets.env");
        if !path.exists() {
            create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut values: HashMap<_, _> =
            text.lines().filter_map(|line| line.split_once('=')).collect();
        let mut take = |name: &str| {
            let value = values.remove(name).with_context(|| {
                format!("{} has no {name}; restore it from a backup", path.display())
            })?;
            anyhow::Ok(Secret::new(value))
        };
        Ok(Self {
            api_key_pepper: take("API_KEY_PEPPER")?,
            clickhouse_service_password: take("CLICKHOUSE_SERVICE_PASSWORD")?,
            clickhouse_reader_password: take("CLICKHOUSE_READER_PASSWORD")?,
        })
    }
}

/// Writes the file whole or not at all: a half-written one would lock the data out for ever.
fn create(path: &Path) -> std::io::Result<()> {
    let draft = path.with_extension("env.new");
    let mut file = private_file(&draft)?;
    for name in ["API_KEY_PEPPER", "CLICKHOUSE_SERVICE_PASSWORD", "CLICKHOUSE_READER_PASSWORD"] {
        writeln!(file, "{name}={}", generate())?;
    }
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

/// A new file for its owner's eyes only.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn generate() -> String {
    use rand::distr::{Alphanumeric, SampleString as _};
    Alphanumeric.sample_string(&mut rand::rng(), LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_made_once_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load_or_create(dir.path()).unwrap();
        let again = Secrets::load_or_create(dir.path()).unwrap();
        assert_eq!(first.api_key_pepper, again.api_key_pepper);
        assert_ne!(first.clickhouse_reader_password, first.clickhouse_service_password);
        let mode = std::fs::metadata(dir.path().join("secrets.env")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
