-- Which of these files were applied, with the checksum of each, so that a file that was changed
-- afterwards is refused instead of ignored.
CREATE TABLE IF NOT EXISTS schema_migrations {on_cluster}
(
    version UInt32,
    name String,
    checksum String COMMENT 'XXH3-128 of the file',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (version, checksum)
