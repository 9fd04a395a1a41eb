INSERT INTO usage_events
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
    identity_hash,
    payload_fingerprint,
    topic_epoch,
    kafka_partition,
    kafka_offset
)
FORMAT RowBinary
