-- A record of the log that can't become a usage row: undecodable, or breaking the record's contract.
-- It is parked here, with its position and reason, before its offset is committed.
--
-- Keyed by position, so that replays are absorbed; read it with FINAL.
CREATE TABLE IF NOT EXISTS dead_letters {on_cluster}
(
    topic LowCardinality(String),
    topic_epoch UInt16,
    kafka_partition UInt16,
    kafka_offset UInt64,
    reason LowCardinality(String) COMMENT 'a stable code',
    detail String,
    record_key String COMMENT 'raw bytes, cut to 64 KiB',
    record_value String COMMENT 'raw bytes, cut to 1 MiB' CODEC(ZSTD(1)),
    record_key_bytes UInt64 COMMENT 'length before the cut',
    record_value_bytes UInt64 COMMENT 'length before the cut',
    parked_at DateTime64(3, 'UTC')
)
ENGINE = {engine:ReplacingMergeTree(parked_at)}
ORDER BY (topic, topic_epoch, kafka_partition, kafka_offset)
SETTINGS
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800
