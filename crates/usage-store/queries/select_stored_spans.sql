-- Where in the log the events of a period stand, whichever life of the topic they are from.
SELECT topic_epoch, kafka_partition, min(kafka_offset), max(kafka_offset), count()
FROM usage_events
WHERE accepted_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
    AND accepted_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')
    AND ({organization:String} = '' OR organization_id = {organization:String})
GROUP BY topic_epoch, kafka_partition
ORDER BY topic_epoch, kafka_partition
