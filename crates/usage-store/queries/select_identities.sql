-- Straight from the table: copies of a row repeat the same identity and position, so FINAL would
-- cost much and change nothing. One scan for all partitions: each row is next to rows of the others.
SELECT
    kafka_partition,
    topic_epoch,
    kafka_offset,
    identity_hash,
    payload_fingerprint,
    toUInt32(intDiv(toUnixTimestamp64Milli(accepted_at), 3600000)) AS accepted_hour
FROM usage_events
WHERE kafka_partition IN {partitions:Array(UInt16)}
    AND topic_epoch <= {epoch:UInt16}
    AND accepted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
