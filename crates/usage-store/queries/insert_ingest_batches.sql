INSERT INTO ingest_batches
(
    topic,
    topic_epoch,
    kafka_partition,
    first_offset,
    last_offset,
    records,
    stored,
    duplicates,
    conflicts,
    dead_letters,
    bytes_hash,
    token,
    inserted_at
)
FORMAT RowBinary
