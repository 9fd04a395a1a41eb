-- One row per accepted event; the source of every invoice. Rows are never updated or deleted.
--
-- A row is a pure function of its log record, so a replay writes the same bytes again and
-- ReplacingMergeTree absorbs them. Copies of one identity that differ are kept out by
-- event-consumer; should one slip in under the same sort key, `version` makes the first position
-- in the log win, whatever the order of arrival.
--
-- The sort key is the one that billing reads by. The partition is a function of the sort key, so
-- copies of a row are always in one partition and merges can meet them.
CREATE TABLE IF NOT EXISTS usage_events {on_cluster}
(
    organization_id LowCardinality(String),
    transaction_scope LowCardinality(String),
    transaction_id String,
    external_customer_id String,
    external_subscription_id String,
    code LowCardinality(String),
    timestamp DateTime64(3, 'UTC') COMMENT 'when the usage happened',
    value Nullable(Decimal(38, 12)) COMMENT 'null means the event has no quantity, which is not 0',
    properties String COMMENT 'the JSON object as the producer wrote it' CODEC(ZSTD(1)),
    accepted_at DateTime64(3, 'UTC') COMMENT 'when the API accepted the event',
    identity_hash FixedString(16) COMMENT 'first half of BLAKE3 of the identity key, for rebuilding the dedup index',
    payload_fingerprint UInt64,
    topic_epoch UInt16,
    kafka_partition UInt16,
    kafka_offset UInt64,
    version UInt64 MATERIALIZED bitNot(bitOr(bitShiftLeft(toUInt64(topic_epoch), 48), kafka_offset)) COMMENT 'first write wins',
    -- The rebuild of the dedup index reads the last weeks of acceptance out of years of usage.
    INDEX accepted_at_range accepted_at TYPE minmax GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree(version)}
PARTITION BY toYYYYMM(timestamp)
ORDER BY (organization_id, code, external_customer_id, timestamp, transaction_scope, transaction_id)
-- Retries of one batch carry one token. Off by default on a single node, and 1 h on replicas.
SETTINGS
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800
