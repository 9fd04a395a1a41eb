-- The billable rows of those identities with the given keys that have more than one, if one of them was
-- accepted in the period. Grouping by the sort key gives what FINAL would, at the cost of the few rows that
-- are in question. Of two events with one key, each is an identity by itself.
SELECT
    identity_hash,
    organization_id,
    transaction_scope,
    transaction_id,
    argMax(topic_epoch, version),
    argMax(kafka_partition, version),
    argMax(kafka_offset, version),
    argMax(accepted_at, version) AS first_accepted_at
FROM usage_events
WHERE reinterpretAsUInt64(identity_hash) IN {keys:Array(UInt64)}
    AND ({organization:String} = '' OR organization_id = {organization:String})
GROUP BY identity_hash, organization_id, transaction_scope, transaction_id, code, external_customer_id, timestamp
QUALIFY count() OVER (PARTITION BY identity_hash) > 1
    AND countIf(
        first_accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
        AND first_accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    ) OVER (PARTITION BY identity_hash) > 0
ORDER BY identity_hash, max(version) DESC
