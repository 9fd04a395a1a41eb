SELECT kafka_offset
FROM dead_letters FINAL
WHERE topic = {topic:String}
    AND topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND kafka_offset >= {first:UInt64}
    AND kafka_offset < {end:UInt64}
ORDER BY kafka_offset
