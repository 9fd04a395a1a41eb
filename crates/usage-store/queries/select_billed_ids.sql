-- Where the events of some ids are stored, over all of the table's history: the dedup index knows the last
-- weeks only. One scan of one column for all of them.
SELECT identity_hash, topic_epoch, kafka_partition, kafka_offset
FROM usage_events
WHERE hex(identity_hash) IN {hashes:Array(String)}
