SELECT kafka_offset, organization_id, accepted_at
FROM usage_event_conflicts FINAL
WHERE topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND kafka_offset >= {first:UInt64}
    AND kafka_offset < {end:UInt64}
    AND ({organization:String} = '' OR organization_id = {organization:String})
ORDER BY kafka_offset
