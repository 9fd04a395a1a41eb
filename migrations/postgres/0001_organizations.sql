-- Everything a customer of this service owns hangs off an organization; events carry its id.
-- Ids compare byte by byte (COLLATE "C"), so that pages are in the same order on every server.
CREATE TABLE organizations (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
