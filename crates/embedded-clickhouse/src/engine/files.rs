//! The engine's configuration files, written anew at every start.

use super::{StartError, utf8};
use crate::config::{DatabasePattern, SQL_BYTES_MAX};
use std::path::Path;

const CONFIG: &str = include_str!("../../engine/config.xml");
const USERS: &str = include_str!("../../engine/users.xml");

/// What the configuration files leave open.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings<'a> {
    /// Most memory of the engine, in bytes.
    pub max_memory: u64,
    pub reader_database: &'a DatabasePattern,
}

/// Writes both files into `data_dir` and returns the name of the main one.
pub(super) fn write(data_dir: &Path, settings: &EngineSettings<'_>) -> Result<String, StartError> {
    let users_path = data_dir.join("users.xml");
    let config_path = data_dir.join("config.xml");
    let users = fill(
        USERS,
        &[
            ("{max_query_size}", &SQL_BYTES_MAX.to_string()),
            // One statement may take most of it, but not so much that merges starve.
            ("{max_memory_usage}", &(settings.max_memory / 4 * 3).to_string()),
            ("{reader_database}", settings.reader_database.as_str()),
        ],
    );
    let config = fill(
        CONFIG,
        &[
            ("{users_config}", &escaped(utf8(&users_path)?)),
            ("{max_memory}", &settings.max_memory.to_string()),
        ],
    );
    for (path, text) in [(&users_path, users), (&config_path, config)] {
        std::fs::write(path, text)
            .map_err(|source| StartError::Directory { path: path.clone(), source })?;
    }
    utf8(&config_path).map(str::to_owned)
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_open_in_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("a & b");
        std::fs::create_dir(&data_dir).unwrap();
        let reader_database = "test_*".parse().unwrap();
        let settings =
            EngineSettings { max_memory: 900_000_000, reader_database: &reader_database };
        let config = std::fs::read_to_string(write(&data_dir, &settings).unwrap()).unwrap();
        assert!(config.contains("a &amp; b/users.xml</users_config>"), "{config}");
        let users = std::fs::read_to_string(data_dir.join("users.xml")).unwrap();
        assert!(
            users.contains("ON test_*.*") && users.contains("<max_memory_usage>675000000<"),
            "{users}"
        );
        assert!(!config.contains('{') && !users.contains('{'));
    }
}
