SELECT DISTINCT topic_epoch
FROM ingest_batches
WHERE topic = {topic:String} AND kafka_partition = {partition:UInt16} AND topic_epoch < {epoch:UInt16}
ORDER BY topic_epoch
