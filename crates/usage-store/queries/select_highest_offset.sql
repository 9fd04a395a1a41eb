-- From the audit, which is written after the rows and before the commit. Its sort key begins with
-- these three columns; usage_events would have to be scanned whole.
SELECT maxOrNull(last_offset)
FROM ingest_batches
WHERE topic = {topic:String} AND topic_epoch = {epoch:UInt16} AND kafka_partition = {partition:UInt16}
