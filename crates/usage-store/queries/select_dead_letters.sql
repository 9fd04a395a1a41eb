-- The newest first. The bytes of the records are left out: they may be 1 MiB each.
SELECT
    topic,
    topic_epoch,
    kafka_partition,
    kafka_offset,
    reason,
    detail,
    record_key_bytes,
    record_value_bytes,
    parked_at
FROM dead_letters FINAL
WHERE ({reason:String} = '' OR reason = {reason:String})
    AND parked_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
ORDER BY parked_at DESC, topic, topic_epoch, kafka_partition, kafka_offset
LIMIT {limit:UInt64}
