INSERT INTO dead_letters
(
    topic,
    topic_epoch,
    kafka_partition,
    kafka_offset,
    reason,
    detail,
    record_key,
    record_value,
    record_key_bytes,
    record_value_bytes,
    parked_at
)
FORMAT RowBinary
