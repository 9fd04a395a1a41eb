//! The tables that are written: the INSERT of each, and the column types its rows are encoded for.

/// A table, as this program writes it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// `INSERT INTO name (columns) FORMAT RowBinary`.
    pub(crate) insert: &'static str,
    /// Name and type of each inserted column, in the order of the INSERT. RowBinary names neither,
    /// so a live table that differs would be filled with nonsense; see `check`.
    pub(crate) columns: &'static [(&'static str, &'static str)],
}

const NAME: &str = "LowCardinality(String)";
const INSTANT: &str = "DateTime64(3, 'UTC')";
const QUANTITY: &str = "Nullable(Decimal(38, 12))";

pub(crate) const USAGE_EVENTS: Table = Table {
    name: "usage_events",
    insert: include_str!("../queries/insert_usage_events.sql"),
    columns: &[
        ("organization_id", NAME),
        ("transaction_scope", NAME),
        ("transaction_id", "String"),
        ("external_customer_id", "String"),
        ("external_subscription_id", "String"),
        ("code", NAME),
        ("timestamp", INSTANT),
        ("value", QUANTITY),
        ("properties", "String"),
        ("accepted_at", INSTANT),
        ("identity_hash", "FixedString(16)"),
        ("payload_fingerprint", "UInt64"),
        ("topic_epoch", "UInt16"),
        ("kafka_partition", "UInt16"),
        ("kafka_offset", "UInt64"),
    ],
};

pub(crate) const USAGE_EVENT_CONFLICTS: Table = Table {
    name: "usage_event_conflicts",
    insert: include_str!("../queries/insert_usage_event_conflicts.sql"),
    columns: &[
        ("organization_id", NAME),
        ("transaction_scope", NAME),
        ("transaction_id", "String"),
        ("external_customer_id", "String"),
        ("external_subscription_id", "String"),
        ("code", NAME),
        ("timestamp", INSTANT),
        ("value", QUANTITY),
        ("properties", "String"),
        ("accepted_at", INSTANT),
        ("payload_fingerprint", "UInt64"),
        ("topic_epoch", "UInt16"),
        ("kafka_partition", "UInt16"),
        ("kafka_offset", "UInt64"),
        ("first_payload_fingerprint", "UInt64"),
        ("first_topic_epoch", "UInt16"),
        ("first_kafka_offset", "UInt64"),
    ],
};

pub(crate) const DEAD_LETTERS: Table = Table {
    name: "dead_letters",
    insert: include_str!("../queries/insert_dead_letters.sql"),
    columns: &[
        ("topic", NAME),
        ("topic_epoch", "UInt16"),
        ("kafka_partition", "UInt16"),
        ("kafka_offset", "UInt64"),
        ("reason", NAME),
        ("detail", "String"),
        ("record_key", "String"),
        ("record_value", "String"),
        ("record_key_bytes", "UInt64"),
        ("record_value_bytes", "UInt64"),
        ("parked_at", INSTANT),
    ],
};

pub(crate) const INGEST_BATCHES: Table = Table {
    name: "ingest_batches",
    insert: include_str!("../queries/insert_ingest_batches.sql"),
    columns: &[
        ("topic", NAME),
        ("topic_epoch", "UInt16"),
        ("kafka_partition", "UInt16"),
        ("first_offset", "UInt64"),
        ("last_offset", "UInt64"),
        ("records", "UInt64"),
        ("stored", "UInt64"),
        ("duplicates", "UInt64"),
        ("conflicts", "UInt64"),
        ("dead_letters", "UInt64"),
        ("bytes_hash", "UInt64"),
        ("token", "String"),
        ("inserted_at", INSTANT),
    ],
};

pub(crate) const SCHEMA_MIGRATIONS: Table = Table {
    name: "schema_migrations",
    insert: include_str!("../queries/insert_schema_migrations.sql"),
    columns: &[("version", "UInt32"), ("name", "String"), ("checksum", "String")],
};

pub(crate) const ALL: [&Table; 5] =
    [&USAGE_EVENTS, &USAGE_EVENT_CONFLICTS, &DEAD_LETTERS, &INGEST_BATCHES, &SCHEMA_MIGRATIONS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_insert_names_its_table_and_columns_in_order() {
        for table in ALL {
            let columns: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
            let expected = format!(
                "INSERT INTO {}\n(\n    {}\n)\nFORMAT RowBinary\n",
                table.name,
                columns.join(",\n    ")
            );
            assert_eq!(table.insert, expected);
        }
    }
}
