-- What is billed, with its place in the log: the rows of the view billable_events, under its settings.
SELECT
    topic_epoch,
    kafka_offset,
    organization_id,
    transaction_scope,
    transaction_id,
    external_customer_id,
    external_subscription_id,
    code,
    timestamp,
    value,
    xxh3(properties),
    accepted_at
FROM usage_events FINAL
WHERE kafka_partition = {partition:UInt16}
    AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({organization:String} = '' OR organization_id = {organization:String})
SETTINGS
    do_not_merge_across_partitions_select_final = 0,
    optimize_move_to_prewhere_if_final = 0,
    use_skip_indexes_if_final = 1,
    use_skip_indexes_if_final_exact_mode = 1,
    defer_partition_pruning_after_final = 1
