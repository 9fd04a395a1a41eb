-- Caches follow this log to see revocations and new metrics within seconds.
-- A sequence hands out numbers in another order than transactions commit, so a reader could step
-- over a number that becomes visible later. The numbers come from one row instead, whose lock is
-- held until commit: they become visible in order and without gaps.
CREATE TABLE config_change_counter (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    last_seq BIGINT NOT NULL
);

INSERT INTO config_change_counter (last_seq) VALUES (0);

-- No foreign key: the log outlives what it speaks of.
CREATE TABLE config_changes (
    seq             BIGINT PRIMARY KEY,
    organization_id TEXT COLLATE "C" NOT NULL,
    kind            TEXT NOT NULL,
    key_id          TEXT COLLATE "C",
    changed_at      TIMESTAMPTZ NOT NULL
);
