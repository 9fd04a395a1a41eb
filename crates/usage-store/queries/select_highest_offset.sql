SELECT maxOrNull(kafka_offset)
FROM usage_events
WHERE kafka_partition = {partition:UInt16} AND topic_epoch = {epoch:UInt16}
