-- The one door to billing: exactly one row per accepted event, merged or not.
--
-- FINAL is exact only under settings that a session could change, so they are written here, where
-- they win over the session's:
-- - PREWHERE and inexact skip indexes would filter before the copies of a row are compared;
-- - partitions are a function of the sort key, so comparing across them is only ever a safety net.
--
-- `value` is widened to 76 digits: `sum` keeps the width of its argument and wraps without a word.
CREATE VIEW IF NOT EXISTS billable_events {on_cluster} AS
SELECT
    organization_id,
    transaction_scope,
    transaction_id,
    external_customer_id,
    external_subscription_id,
    code,
    timestamp,
    CAST(value, 'Nullable(Decimal(76, 12))') AS value,
    properties,
    accepted_at
FROM usage_events FINAL
SETTINGS
    do_not_merge_across_partitions_select_final = 0,
    optimize_move_to_prewhere_if_final = 0,
    use_skip_indexes_if_final = 1,
    use_skip_indexes_if_final_exact_mode = 1,
    defer_partition_pruning_after_final = 1
