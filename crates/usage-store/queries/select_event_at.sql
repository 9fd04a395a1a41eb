SELECT organization_id, transaction_scope, transaction_id
FROM usage_events
WHERE topic_epoch = {epoch:UInt16}
    AND kafka_partition = {partition:UInt16}
    AND kafka_offset = {offset:UInt64}
LIMIT 1
