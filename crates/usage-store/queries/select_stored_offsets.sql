-- Without FINAL: copies of a row have one offset, and a row that FINAL drops was stored all the same.
SELECT DISTINCT kafka_offset
FROM usage_events
WHERE topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND kafka_offset >= {first:UInt64}
    AND kafka_offset < {end:UInt64}
