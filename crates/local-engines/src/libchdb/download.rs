//! The download itself, by npm, so that a person's own registry, proxy and credentials apply.

use super::{FetchError, Release};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
/// How often a line is printed where a bar cannot be.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Downloads the archive of `release` into `scratch`.
pub(super) fn archive(
    npm: &Path,
    scratch: &Path,
    release: &Release,
    progress: bool,
) -> Result<PathBuf, FetchError> {
    let package = format!("{}@{}", release.package, release.version);
    let log = scratch.join("npm.log");
    let mut npm = start_npm(npm, scratch, &log, &package)?;
    let progress = Progress::start(progress, release.archive_bytes);
    let status = loop {
        match npm.try_wait().map_err(FetchError::io("wait for npm in", scratch))? {
            Some(status) => break status,
            None => std::thread::sleep(POLL),
        }
        progress.show(bytes_below(scratch));
    };
    progress.finish();
    let failed = |reason: String| FetchError::Npm { package: package.clone(), reason };
    if !status.success() {
        return Err(failed(last_lines(&log)));
    }
    let entries = std::fs::read_dir(scratch).map_err(FetchError::io("read", scratch))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .ok_or_else(|| failed("it left no archive".to_owned()))
}

fn start_npm(npm: &Path, scratch: &Path, log: &Path, package: &str) -> Result<Child, FetchError> {
    let output = std::fs::File::create(log).map_err(FetchError::io("create", log))?;
    let copy = output.try_clone().map_err(FetchError::io("open", log))?;
    let started = Command::new(npm)
        .args(["pack", package, "--loglevel=error", "--no-update-notifier"])
        // A cache of its own, inside `scratch`, where the bytes that have arrived can be counted.
        .arg("--cache")
        .arg(scratch.join("npm-cache"))
        .arg("--pack-destination")
        .arg(scratch)
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(copy)
        .spawn();
    started.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => FetchError::NoNpm,
        _ => FetchError::io("start npm in", scratch)(error),
    })
}

/// Unpacks the one file `name` of an npm package into `scratch`.
pub(super) fn unpack(archive: &Path, scratch: &Path, name: &str) -> Result<PathBuf, FetchError> {
    let failed = |reason: String| FetchError::Unpack(archive.to_owned(), reason);
    let member = format!("package/{name}");
    let output = Command::new("tar")
        .args(["--extract", "--gzip", "--no-same-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(scratch)
        .arg(&member)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot start tar: {error}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(scratch.join(member))
}

/// The size of all files below `directory`; files that vanish meanwhile count nothing.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("; ")
}

/// Shows a download: a bar on a terminal, else a line every few seconds.
#[derive(Debug)]
enum Progress {
    Silent,
    Bar(ProgressBar),
    Lines { total: u64, last: std::cell::Cell<Instant> },
}

impl Progress {
    fn start(wanted: bool, total: u64) -> Self {
        if !wanted {
            return Self::Silent;
        }
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(
                "ClickHouse engine {bar:40} {bytes}/{total_bytes} {bytes_per_sec}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            return Self::Bar(bar);
        }
        line(&format!("downloading the ClickHouse engine, {} MB, once", megabytes(total)));
        Self::Lines { total, last: std::cell::Cell::new(Instant::now()) }
    }

    fn show(&self, bytes: u64) {
        match self {
            Self::Silent => {}
            // npm's cache and the archive hold the same bytes at the end.
            Self::Bar(bar) => bar.set_position(bytes.min(bar.length().unwrap_or(u64::MAX))),
            Self::Lines { total, last } => {
                if last.get().elapsed() >= LINE_EVERY {
                    last.set(Instant::now());
                    line(&format!("{} of {} MB", megabytes(bytes.min(*total)), megabytes(*total)));
                }
            }
        }
    }

    fn finish(&self) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.finish(),
            Self::Lines { .. } => line("the ClickHouse engine has arrived, unpacking it"),
        }
    }
}

fn megabytes(bytes: u64) -> u64 {
    (bytes + 500_000) / 1_000_000
}

fn line(text: &str) {
    // Nothing is lost when nobody reads it.
    drop(writeln!(std::io::stderr(), "{text}"));
}
