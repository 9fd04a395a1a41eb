-- What an organization bills by. A code keeps its meaning for ever, because stored events carry
-- it: metrics are archived, never deleted, and an archived code is not given out again.
CREATE TABLE billable_metrics (
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    code            TEXT NOT NULL,
    aggregation     TEXT NOT NULL,
    field           TEXT,
    created_at      TEXT NOT NULL,
    archived_at     TEXT,
    PRIMARY KEY (organization_id, code)
) STRICT;
