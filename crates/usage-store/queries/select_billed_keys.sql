-- The key of each event that is billed for a period: the rows of the view billable_events, under its settings.
-- An identity that comes twice has two billable rows; copies of one row, merged or not, come once.
SELECT reinterpretAsUInt64(identity_hash) AS identity_key
FROM usage_events FINAL
WHERE identity_key BETWEEN {first:UInt64} AND {last:UInt64}
    AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({organization:String} = '' OR organization_id = {organization:String})
SETTINGS
    do_not_merge_across_partitions_select_final = 0,
    optimize_move_to_prewhere_if_final = 0,
    use_skip_indexes_if_final = 1,
    use_skip_indexes_if_final_exact_mode = 1,
    defer_partition_pruning_after_final = 1
