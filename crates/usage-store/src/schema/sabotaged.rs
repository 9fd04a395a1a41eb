//! The schema of products that leave it to ClickHouse to compare the copies of an event, or add up
//! usage as it is inserted. Pure.

use fault_injection::Sabotage;
use std::borrow::Cow;

const EVENTS: &str = "0001_usage_events.sql";
const BILLABLE: &str = "0005_billable_events.sql";
const HOURS: &str = "0006_usage_by_hour.sql";

/// What the table is sorted by, and by which products that compare copies by their identity sort it.
const SORT_KEY: (&str, &str) = (
    "ORDER BY (organization_id, code, external_customer_id, timestamp, transaction_scope, transaction_id)",
    "ORDER BY (organization_id, transaction_scope, transaction_id)",
);
/// The last copy wins, not the first.
const VERSION: (&str, &str) = (
    "bitNot(bitOr(bitShiftLeft(toUInt64(topic_epoch), 48), kafka_offset))",
    "bitOr(bitShiftLeft(toUInt64(topic_epoch), 48), kafka_offset)",
);
const DAILY_PARTITIONS: (&str, &str) =
    ("PARTITION BY toYYYYMM(timestamp)", "PARTITION BY toYYYYMMDD(timestamp)");
const PER_PARTITION: (&str, &str) = (
    "do_not_merge_across_partitions_select_final = 0",
    "do_not_merge_across_partitions_select_final = 1",
);
/// The bill of the hours that are over and of the one that runs, each of which looks at its own rows only.
const TWO_PERIODS: (&str, &str) = (
    "FROM usage_events FINAL",
    "FROM
(
    SELECT * FROM usage_events FINAL PREWHERE timestamp < now() - INTERVAL 1 HOUR
    UNION ALL
    SELECT * FROM usage_events FINAL PREWHERE timestamp >= now() - INTERVAL 1 HOUR
)",
);
const SUMMED_ON_INSERT: [(&str, &str); 3] = [
    (
        "CREATE VIEW IF NOT EXISTS usage_by_hour {on_cluster} AS",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS usage_by_hour {on_cluster}
ENGINE = SummingMergeTree((events, events_with_value, value_sum))
ORDER BY (organization_id, external_customer_id, external_subscription_id, code, hour)
AS",
    ),
    ("sum(ifNull(value, toDecimal256(0, 12)))", "sum(toDecimal256(ifNull(value, 0), 12))"),
    ("FROM billable_events", "FROM usage_events"),
];

/// The file `name`, as a product with this wrong behaviour would have it.
pub(super) fn altered<'a>(
    name: &str,
    template: &'a str,
    sabotage: Option<Sabotage>,
) -> Cow<'a, str> {
    let changes: &[(&str, &str)] = match (sabotage, name) {
        (Some(Sabotage::LastWriteWins), EVENTS) => &[SORT_KEY, VERSION],
        (Some(Sabotage::FilterBeforeFinal), EVENTS) => &[SORT_KEY],
        (Some(Sabotage::FilterBeforeFinal), BILLABLE) => &[TWO_PERIODS],
        (Some(Sabotage::FinalPerPartition), EVENTS) => &[SORT_KEY, DAILY_PARTITIONS],
        (Some(Sabotage::FinalPerPartition), BILLABLE) => &[PER_PARTITION],
        (Some(Sabotage::AdditiveView), HOURS) => &SUMMED_ON_INSERT,
        _ => return Cow::Borrowed(template),
    };
    let mut text = template.to_owned();
    for (right, wrong) in changes {
        debug_assert!(text.contains(right), "{name} has `{right}`");
        text = text.replace(right, wrong);
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{SCHEMA_FILES, SchemaFile};

    #[test]
    fn four_sabotages_change_the_schema_and_no_other_does() {
        let changed: Vec<_> = Sabotage::ALL
            .iter()
            .filter(|sabotage| {
                let is_altered = |file: &SchemaFile| {
                    altered(file.name, file.template, Some(**sabotage)) != file.template
                };
                SCHEMA_FILES.iter().any(is_altered)
            })
            .collect();
        let expected = [
            Sabotage::LastWriteWins,
            Sabotage::AdditiveView,
            Sabotage::FilterBeforeFinal,
            Sabotage::FinalPerPartition,
        ];
        assert_eq!(changed, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn without_a_sabotage_a_file_is_as_it_is() {
        for file in SCHEMA_FILES {
            assert_eq!(altered(file.name, file.template, None), file.template);
        }
    }
}
