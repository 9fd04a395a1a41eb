-- A later event with the identity of an accepted one and another payload. It is not billed; it is
-- kept whole, with the position of the copy that is, so that a person can decide.
--
-- Keyed by its own position in the log, so that replays are absorbed; read it with FINAL.
CREATE TABLE IF NOT EXISTS usage_event_conflicts {on_cluster}
(
    organization_id LowCardinality(String),
    transaction_scope LowCardinality(String),
    transaction_id String,
    external_customer_id String,
    external_subscription_id String,
    code LowCardinality(String),
    timestamp DateTime64(3, 'UTC'),
    value Nullable(Decimal(38, 12)),
    properties String CODEC(ZSTD(1)),
    accepted_at DateTime64(3, 'UTC'),
    payload_fingerprint UInt64 COMMENT 'of this, refused, copy',
    topic_epoch UInt16,
    kafka_partition UInt16,
    kafka_offset UInt64,
    first_payload_fingerprint UInt64 COMMENT 'of the accepted copy',
    first_topic_epoch UInt16,
    first_kafka_offset UInt64 COMMENT 'in the same partition'
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (organization_id, topic_epoch, kafka_partition, kafka_offset)
SETTINGS
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800
