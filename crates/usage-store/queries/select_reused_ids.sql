-- What is billed for the identities with the given keys, if they have several billable rows, of which one
-- was accepted in the period; and the rows that are hidden by another one, which FINAL leaves out. Grouping
-- by the sort key gives what FINAL would, at the cost of the few rows that are in question.
SELECT
    identity_hash,
    organization_id,
    transaction_scope,
    transaction_id,
    argMax(topic_epoch, version),
    argMax(kafka_partition, version),
    argMax(kafka_offset, version),
    argMax(accepted_at, version) AS first_accepted_at,
    groupUniqArray(1000002)((topic_epoch, kafka_partition, kafka_offset)) AS places,
    count() OVER (PARTITION BY identity_hash) > 1
        AND countIf(
            first_accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
            AND first_accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
        ) OVER (PARTITION BY identity_hash) > 0 AS is_reused
FROM usage_events
WHERE reinterpretAsUInt64(identity_hash) IN {keys:Array(UInt64)}
    AND ({organization:String} = '' OR organization_id = {organization:String})
GROUP BY identity_hash, organization_id, transaction_scope, transaction_id, code, external_customer_id, timestamp
QUALIFY is_reused OR length(places) > 1
ORDER BY identity_hash, max(version) DESC
