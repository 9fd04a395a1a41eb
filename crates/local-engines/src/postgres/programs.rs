//! Where the server's programs are, and which version they have.

use super::PostgresError;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) psql: PathBuf,
}

impl Programs {
    /// The programs on the search path, or else the newest of a distribution's packages.
    pub(super) fn find() -> Result<Self, PostgresError> {
        let mut directories = search_path();
        directories.extend(packaged("/usr/lib/postgresql"));
        directories
            .into_iter()
            .find_map(|dir| Self::in_directory(&dir))
            .ok_or(PostgresError::NotInstalled)
    }

    fn in_directory(dir: &Path) -> Option<Self> {
        let found = Self {
            initdb: dir.join("initdb"),
            postgres: dir.join("postgres"),
            psql: dir.join("psql"),
        };
        [&found.initdb, &found.postgres, &found.psql]
            .iter()
            .all(|program| program.is_file())
            .then_some(found)
    }

    /// A server reads the data of its own major version only.
    pub(super) fn check_version(&self, data: &Path) -> Result<(), PostgresError> {
        let made_by = fs::read_to_string(data.join("PG_VERSION"))
            .map_err(super::io_error("reading the version of the data"))?;
        let output = Command::new(&self.postgres)
            .arg("--version")
            .output()
            .map_err(super::io_error("asking postgres for its version"))?;
        let version = String::from_utf8_lossy(&output.stdout);
        if major_of(&version) == Some(made_by.trim()) {
            return Ok(());
        }
        Err(PostgresError::Unusable(format!(
            "the data in {} was made by Postgres {}, and {} is {}; install that version, or move the data away",
            data.display(),
            made_by.trim(),
            self.postgres.display(),
            version.trim(),
        )))
    }
}

#[expect(clippy::disallowed_methods, reason = "the search path is the environment's to say")]
fn search_path() -> Vec<PathBuf> {
    std::env::var("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The program directories below `root`, such as `/usr/lib/postgresql/15/bin`, the newest first.
fn packaged(root: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path.join("bin")).collect()
}

/// The `15` of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major_of(version: &str) -> Option<&str> {
    let number = version.split_whitespace().nth(2)?;
    number.split(|c: char| !c.is_ascii_digit()).next().filter(|major| !major.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some("15"));
        assert_eq!(major_of("postgres (PostgreSQL) 17beta1\n"), Some("17"));
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn the_newest_package_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9", "17", "15", "lib"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let found = packaged(root.path().to_str().unwrap());
        let expected = ["17/bin", "15/bin", "9/bin"].map(|dir| root.path().join(dir));
        assert_eq!(found, expected);
    }
}
