-- What an organization bills by. A code keeps its meaning for ever, because stored events carry
-- it: metrics are archived, never deleted, and an archived code is not given out again.
CREATE TABLE billable_metrics (
    organization_id TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    code            TEXT COLLATE "C" NOT NULL,
    aggregation     TEXT NOT NULL,
    field           TEXT,
    created_at      TIMESTAMPTZ NOT NULL,
    archived_at     TIMESTAMPTZ,
    PRIMARY KEY (organization_id, code)
);
