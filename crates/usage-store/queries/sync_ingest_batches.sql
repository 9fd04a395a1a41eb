-- As for usage_events: the audit says where reading has to go on.
SYSTEM SYNC REPLICA ingest_batches LIGHTWEIGHT
