//! The numbered files of `clickhouse-schema/`, built into the program, and how they are rendered.

mod sabotaged;

use crate::error::StoreError;
use fault_injection::{Sabotage, sabotaged};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// One file: one statement, which says why it is there.
#[derive(Clone, Copy, Debug)]
pub struct SchemaFile {
    pub version: u32,
    /// The file name.
    pub name: &'static str,
    pub template: &'static str,
}

macro_rules! schema_files {
    ($($version:literal $name:literal),* $(,)?) => {
        [$(SchemaFile {
            version: $version,
            name: $name,
            template: include_str!(concat!("../../../clickhouse-schema/", $name)),
        }),*]
    };
}

/// Every file, in the order they are applied. Applied ones are never edited.
pub const SCHEMA_FILES: &[SchemaFile] = &schema_files![
    0 "0000_schema_migrations.sql",
    1 "0001_usage_events.sql",
    2 "0002_usage_event_conflicts.sql",
    3 "0003_dead_letters.sql",
    4 "0004_ingest_batches.sql",
    5 "0005_billable_events.sql",
    6 "0006_usage_by_hour.sql",
];

impl SchemaFile {
    /// XXH3-128 of the file, in hexadecimal.
    pub fn checksum(&self) -> String {
        format!("{:032x}", xxh3_128(self.template.as_bytes()))
    }

    /// The statement for a single server, or for `cluster`.
    ///
    /// Two placeholders differ: `{on_cluster}`, and `{engine:Name(arguments)}`, which becomes the
    /// replicated engine of that name. Everything else is the same SQL everywhere.
    pub(crate) fn render(&self, cluster: Option<&Cluster>) -> String {
        let on_cluster =
            cluster.map_or_else(String::new, |cluster| format!("ON CLUSTER `{}`", cluster.0));
        let template = if fault_injection::ENABLED {
            let wrong = Sabotage::ALL.iter().copied().find(|sabotage| sabotaged(*sabotage));
            sabotaged::altered(self.name, self.template, wrong)
        } else {
            Cow::Borrowed(self.template)
        };
        let mut statement = template.replace("{on_cluster}", &on_cluster);
        while let Some(start) = statement.find("{engine:") {
            let length = statement[start..].find('}').expect("a placeholder is closed");
            let engine = statement[start + "{engine:".len()..start + length].to_owned();
            let rendered = if cluster.is_some() { replicated(&engine) } else { engine };
            statement.replace_range(start..=start + length, &rendered);
        }
        statement
    }
}

/// `Name(arguments)` as its replicated sibling. The path is unique per table; the macros are the server's.
fn replicated(engine: &str) -> String {
    const PLACE: &str = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";
    match engine.split_once('(') {
        Some((name, arguments)) => format!("Replicated{name}({PLACE}, {arguments}"),
        None => format!("Replicated{engine}({PLACE})"),
    }
}

/// The name of a cluster, safe to be put between backquotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster(String);

impl Cluster {
    pub(crate) fn parse(name: &str) -> Result<Self, StoreError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(StoreError::Schema(format!(
                "the cluster name `{name}` has characters other than letters, digits, `_`, `-` and `.`"
            )));
        }
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_file_of_the_folder_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clickhouse-schema");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        names.sort();
        let built_in: Vec<_> = SCHEMA_FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(built_in, names);
        for (expected, file) in (0..).zip(SCHEMA_FILES) {
            assert_eq!(file.version, expected);
            assert!(file.name.starts_with(&format!("{expected:04}_")), "{}", file.name);
        }
    }

    #[test]
    fn every_file_says_why_and_is_one_repeatable_statement() {
        for file in SCHEMA_FILES {
            assert!(file.template.starts_with("-- "), "{} begins with why", file.name);
            let code: String =
                file.template.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            assert!(!code.contains(';'), "{} is one statement", file.name);
            assert!(code.contains("IF NOT EXISTS"), "{} can be applied twice", file.name);
            assert!(code.contains("{on_cluster}"), "{} reaches every replica", file.name);
        }
    }

    #[test]
    fn a_single_server_gets_the_plain_engine() {
        for file in SCHEMA_FILES {
            let statement = file.render(None);
            assert!(!statement.contains(['{', '}']), "{statement}");
        }
        assert!(SCHEMA_FILES[1].render(None).contains("ENGINE = ReplacingMergeTree(version)\n"));
    }

    #[test]
    fn a_cluster_gets_replicated_engines_everywhere() {
        let cluster = Cluster::parse("main-1").unwrap();
        let events = SCHEMA_FILES[1].render(Some(&cluster));
        assert!(events.contains("usage_events ON CLUSTER `main-1`\n"), "{events}");
        let engine = "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)\n";
        assert!(events.contains(engine), "{events}");
        let plain = SCHEMA_FILES[0].render(Some(&cluster));
        assert!(plain.contains("'{replica}')\n"), "{plain}");
    }

    #[test]
    fn a_cluster_name_cannot_carry_sql() {
        for name in ["", "a`b", "a b", "a'b"] {
            assert!(Cluster::parse(name).is_err(), "{name}");
        }
    }
}
