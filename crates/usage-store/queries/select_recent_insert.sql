-- When the consumer was at work last, by its own clock: the earliest of the newest 100 ranges of a
-- partition, so that a clock that was wrong for a moment does not count. Read backwards along the
-- sort key. And what the time is by the store's own clock.
SELECT minOrNull(inserted_at), now64(3, 'UTC')
FROM
(
    SELECT inserted_at
    FROM ingest_batches
    WHERE topic = {topic:String} AND topic_epoch = {epoch:UInt16} AND kafka_partition = {partition:UInt16}
    ORDER BY first_offset DESC
    LIMIT 100
)
