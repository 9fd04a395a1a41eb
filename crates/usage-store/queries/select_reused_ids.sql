-- The billable rows of identities that have more than one, if one of them was accepted in the period.
-- Grouping by the sort key gives what FINAL would, at the cost of the few rows that are in question.
-- One slice of the hashes at a time, so that none needs much memory.
SELECT
    identity_hash,
    organization_id,
    transaction_scope,
    transaction_id,
    argMax(topic_epoch, version),
    argMax(kafka_partition, version),
    argMax(kafka_offset, version),
    argMax(accepted_at, version)
FROM usage_events
WHERE identity_hash IN
(
    SELECT identity_hash
    FROM usage_events
    WHERE reinterpretAsUInt16(identity_hash) % {buckets:UInt16} = {bucket:UInt16}
        AND identity_hash IN
        (
            SELECT identity_hash
            FROM usage_events
            WHERE reinterpretAsUInt16(identity_hash) % {buckets:UInt16} = {bucket:UInt16}
                AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
                AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
                AND ({organization:String} = '' OR organization_id = {organization:String})
        )
    GROUP BY identity_hash
    HAVING min(version) != max(version)
)
GROUP BY identity_hash, organization_id, transaction_scope, transaction_id, code, external_customer_id, timestamp
ORDER BY identity_hash, max(version) DESC
