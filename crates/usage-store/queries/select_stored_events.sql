-- What was stored for a period, with its place in the log. Without FINAL, which reads the rows of all time
-- that are near one of them by the sort key, and these are all. What it would leave out is told apart by
-- its place: copies of a row repeat it, and rows that another one hides are known by theirs.
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
    accepted_at,
    reinterpretAsUInt64(identity_hash)
FROM usage_events
WHERE kafka_partition = {partition:UInt16}
    AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({organization:String} = '' OR organization_id = {organization:String})
