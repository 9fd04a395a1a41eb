-- How much memory select_identities.sql will fill. Copies of a row that were not merged yet count
-- each, so it is the most there can be.
SELECT kafka_partition, count()
FROM usage_events
WHERE kafka_partition IN {partitions:Array(UInt16)}
    AND topic_epoch <= {epoch:UInt16}
    AND accepted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
GROUP BY kafka_partition
