use super::*;
use std::process::Command;

/// A package as npm makes it, with `text` as its library, and the release that describes it.
fn package(directory: &Path, text: &str) -> (PathBuf, Release) {
    let contents = directory.join("package");
    std::fs::create_dir(&contents).unwrap();
    std::fs::write(contents.join(LIBRARY), text).unwrap();
    std::fs::write(contents.join("other"), "x").unwrap();
    let archive = directory.join("package.tgz");
    let tar = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(directory)
        .arg("package")
        .status()
        .unwrap();
    assert!(tar.success());
    let leak = |path: &Path| -> &'static str { sha256(path).unwrap().leak() };
    let release = Release {
        library_bytes: u64::try_from(text.len()).unwrap(),
        library_sha256: leak(&contents.join(LIBRARY)),
        archive_sha256: leak(&archive),
        ..RELEASE
    };
    std::fs::remove_dir_all(contents).unwrap();
    (archive, release)
}

#[test]
fn the_checksum_is_the_standard_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, "abc").unwrap();
    assert_eq!(
        sha256(&path).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn what_was_installed_is_found_without_a_download() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, release) = package(directory.path(), "library");
    assert!(!is_verified(directory.path(), &release));
    install(&archive, directory.path(), directory.path(), &release).unwrap();
    assert!(is_verified(directory.path(), &release));
    let found = ensure_in(directory.path(), &release, Path::new("/nothing"), false).unwrap();
    assert_eq!(std::fs::read_to_string(found).unwrap(), "library");
}

#[test]
fn a_library_of_another_checksum_is_not_installed() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, release) = package(directory.path(), "library");
    let other = Release { library_sha256: RELEASE.library_sha256, ..release };
    let refused = install(&archive, directory.path(), directory.path(), &other);
    assert!(matches!(refused, Err(FetchError::Checksum { .. })), "{refused:?}");
    assert!(!directory.path().join(LIBRARY).exists());
    assert!(!is_verified(directory.path(), &other));
}

#[test]
fn a_marker_does_not_vouch_for_another_size_or_release() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, release) = package(directory.path(), "library");
    install(&archive, directory.path(), directory.path(), &release).unwrap();
    std::fs::write(directory.path().join(LIBRARY), "librar").unwrap();
    assert!(!is_verified(directory.path(), &release));
    std::fs::write(directory.path().join(LIBRARY), "LIBRARY").unwrap();
    assert!(is_verified(directory.path(), &release), "its bytes are not read again");
    assert!(!is_verified(directory.path(), &RELEASE));
}

#[test]
fn a_library_that_lost_its_marker_is_verified_again() {
    let directory = tempfile::tempdir().unwrap();
    let (archive, release) = package(directory.path(), "library");
    install(&archive, directory.path(), directory.path(), &release).unwrap();
    std::fs::remove_file(directory.path().join(VERIFIED)).unwrap();
    assert!(ensure_in(directory.path(), &release, Path::new("/nothing"), false).is_ok());
    assert!(is_verified(directory.path(), &release));
}

/// A program that stands in for npm.
fn fake_npm(directory: &Path, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join("npm");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn two_processes_at_once_download_once() {
    let source = tempfile::tempdir().unwrap();
    let (archive, release) = package(source.path(), "library");
    let calls = source.path().join("calls");
    let script = format!("echo called >> '{}'; cp '{}' .", calls.display(), archive.display());
    let npm = fake_npm(source.path(), &script);
    let cache = tempfile::tempdir().unwrap();
    let directory = cache.path().join("libchdb");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ensure_in(&directory, &release, &npm, false).unwrap());
        }
    });
    assert_eq!(std::fs::read_to_string(directory.join(LIBRARY)).unwrap(), "library");
    assert_eq!(std::fs::read_to_string(calls).unwrap(), "called\n");
    let left: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "the library, its marker and the lock: {left:?}");
}

#[test]
fn a_damaged_download_leaves_nothing_behind() {
    let source = tempfile::tempdir().unwrap();
    let (archive, release) = package(source.path(), "library");
    let script = format!("cp '{}' . && printf x >> package.tgz", archive.display());
    let npm = fake_npm(source.path(), &script);
    let cache = tempfile::tempdir().unwrap();
    let refused = ensure_in(cache.path(), &release, &npm, false);
    assert!(matches!(refused, Err(FetchError::Checksum { .. })), "{refused:?}");
    assert!(!cache.path().join(LIBRARY).exists() && !is_verified(cache.path(), &release));
}

#[test]
fn what_npm_says_is_passed_on() {
    let source = tempfile::tempdir().unwrap();
    let npm = fake_npm(source.path(), "echo 'npm error code ENOTFOUND' >&2; exit 1");
    let failed = ensure_in(source.path(), &RELEASE, &npm, false).unwrap_err().to_string();
    let expected = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1: npm error code ENOTFOUND";
    assert!(failed.contains(expected), "{failed}");
    let missing = ensure_in(source.path(), &RELEASE, Path::new("/no/such/npm"), false);
    assert!(matches!(missing, Err(FetchError::NoNpm)), "{missing:?}");
}
