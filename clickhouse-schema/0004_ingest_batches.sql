-- What event-consumer did with every record of the log: one row per partition range per insert.
-- The ranges of a partition tile it without gaps, which proves that nothing was skipped:
-- records = stored + duplicates + conflicts + dead_letters.
--
-- A batch that is cut again after a crash starts where an earlier one did; the longest range wins, so
-- that a late, shorter attempt cannot open a gap.
-- Read it with FINAL.
CREATE TABLE IF NOT EXISTS ingest_batches {on_cluster}
(
    topic LowCardinality(String),
    topic_epoch UInt16,
    kafka_partition UInt16,
    first_offset UInt64,
    last_offset UInt64 COMMENT 'inclusive',
    records UInt64 COMMENT 'read from the log in the range',
    stored UInt64 COMMENT 'inserted into usage_events',
    duplicates UInt64,
    conflicts UInt64,
    dead_letters UInt64,
    bytes_hash UInt64 COMMENT 'of the bytes of the insert the range was part of',
    token String COMMENT 'insert_deduplication_token of that insert',
    inserted_at DateTime64(3, 'UTC')
)
ENGINE = {engine:ReplacingMergeTree(last_offset)}
ORDER BY (topic, topic_epoch, kafka_partition, first_offset)
SETTINGS
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800
