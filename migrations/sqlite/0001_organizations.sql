-- Everything a customer of this service owns hangs off an organization; events carry its id.
-- Instants are RFC 3339 text in UTC, to the millisecond.
CREATE TABLE organizations (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
