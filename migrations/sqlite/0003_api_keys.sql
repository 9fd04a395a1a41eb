-- A key is found by its public id and checked against HMAC-SHA256(pepper, secret): neither this
-- table nor a copy of it can be used to send events. Keys are revoked, never deleted.
CREATE TABLE api_keys (
    key_id          TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name            TEXT NOT NULL,
    secret_hash     BLOB NOT NULL CHECK (length(secret_hash) = 32),
    scopes          TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    expires_at      TEXT,
    revoked_at      TEXT
) STRICT;

CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at);
