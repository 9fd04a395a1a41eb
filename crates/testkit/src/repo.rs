//! Facts about this repository that its own tests check.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the source tree.
///
/// # Panics
/// When this crate is not where it belongs.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies in crates/").to_path_buf()
}

/// The files git tracks or would track, relative to the root.
///
/// # Panics
/// When git cannot say.
pub fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = listed.expect("git is installed");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    text.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect()
}

/// The normal dependencies of each workspace crate: ours and others'.
///
/// # Panics
/// When cargo cannot say.
pub fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let normal = |package: &cargo_metadata::Package| {
        let mut names: Vec<_> = package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
            .map(|d| d.name.clone())
            .collect();
        names.sort();
        names
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), normal(package))).collect()
}
