//! Fetches libchdb, the ClickHouse engine as a library: 178 MB, once, verified.

mod download;

use crate::cache_dir;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A release of the library.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The npm package, which is how the library is published.
    pub package: &'static str,
    pub version: &'static str,
    pub archive_bytes: u64,
    pub archive_sha256: &'static str,
    pub library_bytes: u64,
    pub library_sha256: &'static str,
}

/// The release the facade was written for and tested with.
pub const RELEASE: Release = Release {
    package: "@chdb/lib-linux-x64-gnu",
    version: "26.7.3-stable.1",
    archive_bytes: 177_817_999,
    archive_sha256: "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad",
    library_bytes: 566_330_096,
    library_sha256: "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5",
};

const LIBRARY: &str = "libchdb.so";
/// Written once the library's checksum was right, so that later starts need not read half a gigabyte.
const VERIFIED: &str = "libchdb.so.verified";

/// The library cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(
        "the embedded ClickHouse engine exists for Linux on x86-64 only; set CLICKHOUSE_URL to use a ClickHouse server"
    )]
    Platform,
    #[error("CHDB_LIB names {0}, which is not a file")]
    Named(PathBuf),
    #[error(
        "npm is needed to download the ClickHouse engine; install it with: apt-get install npm (or set CLICKHOUSE_URL to use a ClickHouse server)"
    )]
    NoNpm,
    #[error("npm could not download {package}: {reason}")]
    Npm { package: String, reason: String },
    #[error(
        "the checksum of {path} is {found}, not {expected}: the download is damaged or not what it should be; nothing was installed"
    )]
    Checksum { path: PathBuf, found: String, expected: String },
    #[error("{0} could not be unpacked: {1}")]
    Unpack(PathBuf, String),
    #[error("cannot {operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl FetchError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// The path of libchdb.so: `CHDB_LIB` when that is set, else the cached one, which is downloaded when it is not
/// there yet. With `progress`, a download shows how far it is on standard error. Blocks.
pub fn ensure(progress: bool) -> Result<PathBuf, FetchError> {
    if let Some(named) = std::env::var_os("CHDB_LIB").filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(named) } else { Err(FetchError::Named(named)) };
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        return Err(FetchError::Platform);
    }
    ensure_in(&cache_dir().join("libchdb-26.7.3"), &RELEASE, Path::new("npm"), progress)
}

/// The library of `release` in `directory`, downloaded by the program `npm` when it is not there.
fn ensure_in(
    directory: &Path,
    release: &Release,
    npm: &Path,
    progress: bool,
) -> Result<PathBuf, FetchError> {
    let library = directory.join(LIBRARY);
    if is_verified(directory, release) {
        return Ok(library);
    }
    std::fs::create_dir_all(directory).map_err(FetchError::io("create", directory))?;
    // Held until return: a second process waits here and then finds the library.
    let lock_path = directory.join("lock");
    let lock = File::create(&lock_path).map_err(FetchError::io("create", &lock_path))?;
    lock.lock().map_err(FetchError::io("lock", &lock_path))?;
    if is_verified(directory, release) {
        return Ok(library);
    }
    if library.is_file() && verify(&library, release.library_sha256).is_ok() {
        mark_verified(directory, release)?;
        return Ok(library);
    }
    let scratch = tempfile::Builder::new().prefix("download-").tempdir_in(directory);
    let scratch = scratch.map_err(FetchError::io("create a directory in", directory))?;
    let archive = download::archive(npm, scratch.path(), release, progress)?;
    verify(&archive, release.archive_sha256)?;
    install(&archive, scratch.path(), directory, release)?;
    Ok(library)
}

/// Unpacks a verified archive and puts the library in its place at once or not at all.
fn install(
    archive: &Path,
    scratch: &Path,
    directory: &Path,
    release: &Release,
) -> Result<(), FetchError> {
    let unpacked = download::unpack(archive, scratch, LIBRARY)?;
    verify(&unpacked, release.library_sha256)?;
    let durable = |path: &Path| {
        File::open(path).and_then(|file| file.sync_all()).map_err(FetchError::io("sync", path))
    };
    durable(&unpacked)?;
    let library = directory.join(LIBRARY);
    std::fs::rename(&unpacked, &library).map_err(FetchError::io("install", &library))?;
    durable(directory)?;
    mark_verified(directory, release)
}

fn marker(release: &Release) -> String {
    format!("{} {}\n", release.library_sha256, release.library_bytes)
}

fn is_verified(directory: &Path, release: &Release) -> bool {
    let right_size =
        directory.join(LIBRARY).metadata().is_ok_and(|file| file.len() == release.library_bytes);
    right_size
        && std::fs::read_to_string(directory.join(VERIFIED))
            .is_ok_and(|text| text == marker(release))
}

fn mark_verified(directory: &Path, release: &Release) -> Result<(), FetchError> {
    let path = directory.join(VERIFIED);
    std::fs::write(&path, marker(release)).map_err(FetchError::io("write", &path))
}

fn verify(path: &Path, expected: &str) -> Result<(), FetchError> {
    let found = sha256(path).map_err(FetchError::io("read", path))?;
    if found == expected {
        return Ok(());
    }
    Err(FetchError::Checksum { path: path.to_owned(), found, expected: expected.to_owned() })
}

/// The checksum of a file, in lower-case hexadecimal digits.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
