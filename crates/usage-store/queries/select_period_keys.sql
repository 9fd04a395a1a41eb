-- The key and the place of each row of a period. Without FINAL, which reads the rows of all time that are
-- near one of them by the sort key, and these are all: copies of a row repeat the same place.
SELECT reinterpretAsUInt64(identity_hash) AS identity_key, topic_epoch, kafka_partition, kafka_offset
FROM usage_events
WHERE identity_key BETWEEN {first:UInt64} AND {last:UInt64}
    AND accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({organization:String} = '' OR organization_id = {organization:String})
