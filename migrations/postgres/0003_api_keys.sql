-- A key is found by its public id and checked against HMAC-SHA256(pepper, secret): neither this
-- table nor a copy of it can be used to send events. Keys are revoked, never deleted.
CREATE TABLE api_keys (
    key_id          TEXT COLLATE "C" PRIMARY KEY,
    organization_id TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    name            TEXT NOT NULL,
    secret_hash     BYTEA NOT NULL CHECK (octet_length(secret_hash) = 32),
    scopes          TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    expires_at      TIMESTAMPTZ,
    revoked_at      TIMESTAMPTZ
);

CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at);
