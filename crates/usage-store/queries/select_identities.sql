-- Straight from the table: copies of a row repeat the same identity and position, so FINAL would
-- cost much and change nothing.
SELECT topic_epoch, kafka_offset, identity_hash, payload_fingerprint
FROM usage_events
WHERE kafka_partition = {partition:UInt16}
    AND topic_epoch <= {epoch:UInt16}
    AND accepted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
