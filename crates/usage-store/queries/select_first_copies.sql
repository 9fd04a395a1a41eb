-- Every identity of a partition before a place in the log, over all of the table's history; or those with
-- some keys.
-- Without FINAL, which would cost much and change nothing: copies of a row repeat the same place.
SELECT topic_epoch, kafka_offset, identity_hash, payload_fingerprint, accepted_at
FROM usage_events
WHERE kafka_partition = {partition:UInt16}
    AND (topic_epoch < {epoch:UInt16} OR topic_epoch = {epoch:UInt16} AND kafka_offset < {end:UInt64})
    AND ({all:Bool} OR reinterpretAsUInt64(identity_hash) IN {keys:Array(UInt64)})
