-- Waits until this replica has every part that the cluster has confirmed. LIGHTWEIGHT: not until
-- they are merged.
SYSTEM SYNC REPLICA usage_events LIGHTWEIGHT
