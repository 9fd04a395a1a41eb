-- By offset, or by the time of the insert: of records that the log has deleted, only the time is known.
SELECT first_offset, last_offset, records, stored, duplicates, conflicts, dead_letters
FROM ingest_batches FINAL
WHERE topic = {topic:String}
    AND topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND last_offset >= {first:UInt64}
    AND first_offset < {end:UInt64}
    AND inserted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND inserted_at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
ORDER BY first_offset
