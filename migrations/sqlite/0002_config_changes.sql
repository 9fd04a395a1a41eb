-- Caches follow this log to see revocations and new metrics within seconds.
-- The numbers come from one row, as on Postgres, where its lock makes them visible in order and
-- without gaps; here there is one writer at a time anyway.
CREATE TABLE config_change_counter (
    only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    last_seq INTEGER NOT NULL
) STRICT;

INSERT INTO config_change_counter (last_seq) VALUES (0);

-- No foreign key: the log outlives what it speaks of.
CREATE TABLE config_changes (
    seq             INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL,
    kind            TEXT NOT NULL,
    key_id          TEXT,
    changed_at      TEXT NOT NULL
) STRICT;
