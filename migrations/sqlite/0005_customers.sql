-- Names for the customer ids that events carry. Events of customers not listed here are accepted.
CREATE TABLE customers (
    organization_id      TEXT NOT NULL REFERENCES organizations (id),
    external_customer_id TEXT NOT NULL,
    name                 TEXT NOT NULL,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    PRIMARY KEY (organization_id, external_customer_id)
) STRICT;
