SELECT
    topic,
    topic_epoch,
    kafka_partition,
    kafka_offset,
    reason,
    detail,
    record_key_bytes,
    record_value_bytes,
    parked_at,
    record_key,
    record_value
FROM dead_letters FINAL
WHERE topic = {topic:String}
    AND topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND kafka_offset = {offset:UInt64}
