//! Applies the schema files that are not applied yet, forward only.

use crate::error::StoreError;
use crate::schema::{Cluster, SCHEMA_FILES, SchemaFile};
use crate::store::{UsageStore, within};
use crate::table::SCHEMA_MIGRATIONS;
use clickhouse::sql::Identifier;
use tracing::info;

const DATABASE: &str = include_str!("../queries/select_database.sql");
const APPLIED: &str = include_str!("../queries/select_schema_migrations.sql");
const CREATE_DATABASE: &str = "creating the database";
const READ_APPLIED: &str = "reading the applied schema files";
const APPLY: &str = "applying a schema file";
const RECORD: &str = "recording an applied schema file";

/// `(version, name, checksum)` of a file that was applied.
pub(crate) type Applied = (u32, String, String);

impl UsageStore {
    /// Creates the database if there is none, and applies the files of `clickhouse-schema/` that it
    /// lacks. Returns how many were applied.
    ///
    /// Safe to run at any time and by several at once: each statement can be repeated.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when a file that was applied has been changed since.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        let cluster = self.config.cluster.as_deref().map(Cluster::parse).transpose()?;
        self.create_database(self.config.cluster.as_deref()).await?;
        // The first file makes the table that the others are recorded in.
        self.apply(&SCHEMA_FILES[0], cluster.as_ref()).await?;
        let missing = missing(&self.applied().await?)?;
        for file in &missing {
            self.apply(file, cluster.as_ref()).await?;
            self.record(file).await?;
            info!(file = file.name, database = self.config.database, "applied a schema file");
        }
        Ok(missing.len())
    }

    /// The applied files, in order of their version.
    pub(crate) async fn applied(&self) -> Result<Vec<Applied>, StoreError> {
        within(self.config.query_timeout, READ_APPLIED, self.query(APPLIED).fetch_all()).await
    }

    async fn create_database(&self, cluster: Option<&str>) -> Result<(), StoreError> {
        let limit = self.config.query_timeout;
        // Asked outside of the database, which may not be there. A server's user may be allowed to
        // use its database, but not to create one.
        let outside = self.client.clone().with_database("system");
        let exists =
            outside.query_raw(DATABASE).param("database", &self.config.database).fetch_one::<u64>();
        if within(limit, CREATE_DATABASE, exists).await? > 0 {
            return Ok(());
        }
        let create = match cluster {
            Some(cluster) => outside
                .query("CREATE DATABASE IF NOT EXISTS ? ON CLUSTER ?")
                .bind(Identifier(&self.config.database))
                .bind(Identifier(cluster)),
            None => outside
                .query("CREATE DATABASE IF NOT EXISTS ?")
                .bind(Identifier(&self.config.database)),
        };
        within(limit, CREATE_DATABASE, create.execute()).await
    }

    async fn apply(&self, file: &SchemaFile, cluster: Option<&Cluster>) -> Result<(), StoreError> {
        let statement = self.client.query_raw(&file.render(cluster));
        within(self.config.query_timeout, APPLY, statement.execute()).await
    }

    async fn record(&self, file: &SchemaFile) -> Result<(), StoreError> {
        use crate::row_binary::{put_bytes, put_u32};
        let mut row = Vec::new();
        put_u32(&mut row, file.version);
        put_bytes(&mut row, file.name.as_bytes());
        put_bytes(&mut row, file.checksum().as_bytes());
        // Without a token of its own: two appliers may both record the file, which is harmless.
        let recorded = self.insert(&SCHEMA_MIGRATIONS, row.into(), file.name).await;
        recorded.map_err(|error| StoreError::Query {
            operation: RECORD,
            code: error.code,
            source: Box::new(error),
        })
    }
}

/// The files that are to be applied still.
///
/// Files that only a newer program knows are none of our business: they are forward-only, so what
/// we need is there.
pub(crate) fn missing(applied: &[Applied]) -> Result<Vec<&'static SchemaFile>, StoreError> {
    let mut missing = Vec::new();
    for file in SCHEMA_FILES {
        let checksum = file.checksum();
        let mut found =
            applied.iter().filter(|(version, _, _)| *version == file.version).peekable();
        if found.peek().is_none() {
            missing.push(file);
        } else if let Some((_, name, other)) = found.find(|(_, _, applied)| *applied != checksum) {
            return Err(StoreError::Schema(format!(
                "the schema file {} was applied as {name} with checksum {other} and is {checksum} now; \
                 restore it, and put the change into a new file",
                file.name
            )));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(files: &[SchemaFile]) -> Vec<Applied> {
        files.iter().map(|file| (file.version, file.name.to_owned(), file.checksum())).collect()
    }

    fn versions(applied: &[Applied]) -> Vec<u32> {
        missing(applied).unwrap().iter().map(|file| file.version).collect()
    }

    #[test]
    fn what_is_not_applied_is_missing() {
        assert_eq!(versions(&[]).len(), SCHEMA_FILES.len());
        assert_eq!(versions(&applied(&SCHEMA_FILES[..3]))[0], 3);
        assert!(versions(&applied(SCHEMA_FILES)).is_empty());
    }

    #[test]
    fn a_newer_schema_is_accepted() {
        let mut newer = applied(SCHEMA_FILES);
        newer.push((9999, "9999_later.sql".to_owned(), "ff".to_owned()));
        assert!(versions(&newer).is_empty());
    }

    #[test]
    fn a_changed_file_is_refused_even_beside_the_right_one() {
        let mut changed = applied(SCHEMA_FILES);
        changed.push((2, changed[2].1.clone(), "00".to_owned()));
        let error = missing(&changed).unwrap_err().to_string();
        assert!(error.contains("0002_usage_event_conflicts.sql"), "{error}");
    }
}
