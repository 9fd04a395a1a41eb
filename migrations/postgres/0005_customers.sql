-- Names for the customer ids that events carry. Events of customers not listed here are accepted.
CREATE TABLE customers (
    organization_id      TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    external_customer_id TEXT COLLATE "C" NOT NULL,
    name                 TEXT NOT NULL,
    created_at           TIMESTAMPTZ NOT NULL,
    updated_at           TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (organization_id, external_customer_id)
);
