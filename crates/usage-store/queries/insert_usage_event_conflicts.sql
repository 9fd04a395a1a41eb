INSERT INTO usage_event_conflicts
(
    organization_id,
    transaction_scope,
    transaction_id,
    external_customer_id,
    external_subscription_id,
    code,
    timestamp,
    value,
    properties,
    accepted_at,
    payload_fingerprint,
    topic_epoch,
    kafka_partition,
    kafka_offset,
    first_payload_fingerprint,
    first_topic_epoch,
    first_kafka_offset
)
FORMAT RowBinary
