//! Makes sure at start that the live database is the one the rows are encoded for.

use crate::error::StoreError;
use crate::migrate::missing;
use crate::store::{UsageStore, within};
use crate::table::{self, Table};
use std::collections::HashMap;

const COLUMNS: &str = include_str!("../queries/select_columns.sql");
const ENGINE: &str = include_str!("../queries/select_engine.sql");
const READONLY: &str = include_str!("../queries/select_readonly.sql");
const CHECK: &str = "checking the schema";

impl UsageStore {
    /// Compares the live database with what this program writes.
    ///
    /// # Errors
    /// [`StoreError::Schema`] with what differs: RowBinary carries no types, so rows written into
    /// columns of other types would be nonsense without an error.
    pub async fn check(&self) -> Result<(), StoreError> {
        let limit = self.config.query_timeout;
        let missing = missing(&self.applied().await?)?;
        if let Some(file) = missing.first() {
            return Err(StoreError::Schema(format!(
                "the database `{}` lacks {} schema files, the first of them {}; run the `migrate` command",
                self.config.database,
                missing.len(),
                file.name
            )));
        }
        let readonly: String = within(limit, CHECK, self.query(READONLY).fetch_one()).await?;
        if readonly != "0" {
            return Err(StoreError::Schema(format!(
                "the user `{}` is read-only; use the service's user",
                self.config.user
            )));
        }
        for table in table::ALL {
            let columns: Vec<(String, String)> =
                within(limit, CHECK, self.query(COLUMNS).param("table", table.name).fetch_all())
                    .await?;
            let engine: Option<String> = within(
                limit,
                CHECK,
                self.query(ENGINE).param("table", table.name).fetch_optional(),
            )
            .await?;
            compare(table, &columns.into_iter().collect(), engine.as_deref())
                .map_err(StoreError::Schema)?;
        }
        Ok(())
    }
}

fn compare(
    table: &Table,
    live: &HashMap<String, String>,
    engine: Option<&str>,
) -> Result<(), String> {
    let name = table.name;
    match engine {
        // Replays are absorbed by this engine, and by no other.
        Some(
            "ReplacingMergeTree" | "ReplicatedReplacingMergeTree" | "SharedReplacingMergeTree",
        ) => {}
        Some(engine) => {
            return Err(format!(
                "the table {name} has the engine {engine} and not ReplacingMergeTree"
            ));
        }
        None => return Err(format!("there is no table {name}; run the `migrate` command")),
    }
    for (column, expected) in table.columns {
        match live.get(*column) {
            Some(found) if found == expected => {}
            Some(found) => {
                return Err(format!(
                    "the column {name}.{column} is {found}, but rows are written as {expected}"
                ));
            }
            None => return Err(format!("there is no column {name}.{column}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::USAGE_EVENTS;

    fn live() -> HashMap<String, String> {
        USAGE_EVENTS
            .columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()))
            .collect()
    }

    #[test]
    fn the_live_table_may_have_more_columns_but_not_others() {
        let mut columns = live();
        columns.insert("version".to_owned(), "UInt64".to_owned());
        let check = |columns: &HashMap<_, _>, engine| compare(&USAGE_EVENTS, columns, engine);
        assert_eq!(check(&columns, Some("ReplacingMergeTree")), Ok(()));
        assert!(check(&columns, Some("MergeTree")).is_err());
        assert!(check(&columns, None).is_err());
        columns.insert("value".to_owned(), "Nullable(Decimal(38, 26))".to_owned());
        assert!(
            check(&columns, Some("ReplacingMergeTree")).unwrap_err().contains("usage_events.value")
        );
        columns.remove("value");
        assert!(check(&columns, Some("ReplacingMergeTree")).is_err());
    }
}
