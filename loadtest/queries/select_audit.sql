SELECT topic, topic_epoch, kafka_partition, first_offset, last_offset, records, stored, duplicates, conflicts, dead_letters
FROM ingest_batches FINAL
FORMAT TabSeparated
