-- Orders, what is known of them, and the assets that came of them. Everything here is owned by the publisher.
CREATE SCHEMA publisher;

-- One row per request that anything was ever heard of. Its row lock is what decisions are taken under.
CREATE TABLE publisher.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    wake_at timestamptz,              -- when the sweeper must look; null until there is a verdict
    closed_at timestamptz,
    outcome text CHECK (outcome IN ('approved', 'partial', 'refused', 'failed', 'cancelled', 'expired')),
    UNIQUE (tenant, request_id),
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX orders_due ON publisher.orders (wake_at) WHERE closed_at IS NULL AND wake_at IS NOT NULL;
CREATE INDEX orders_unclaimed ON publisher.orders (opened_at) WHERE closed_at IS NULL AND wake_at IS NULL;

-- The set of facts of contract 3.2 rule 1. A fact is never changed: the first stored of a name wins.
-- `says` is what decisions read, `evidence` the event or document that is published from.
CREATE TABLE publisher.facts (
    order_id bigint NOT NULL REFERENCES publisher.orders ON DELETE CASCADE,
    kind text NOT NULL,
    name text NOT NULL,
    says jsonb NOT NULL,
    evidence jsonb,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (order_id, kind, name)
);

-- The newest public fact about each asset (`document`), by the one sequence of versions of rule 17.
CREATE TABLE publisher.assets (
    asset_id uuid PRIMARY KEY,
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    candidate_id uuid NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    status text NOT NULL CHECK (status IN ('approved', 'revoked')),
    labels jsonb NOT NULL,
    document jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX assets_page ON publisher.assets (tenant, updated_at, asset_id);
CREATE INDEX assets_labels ON publisher.assets USING gin (labels jsonb_path_ops);

-- Rows to be sent, by the relays of the bus.
CREATE TABLE publisher.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane text NOT NULL CHECK (lane IN ('plain', 'transactional')),
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    number bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON publisher.outbox (lane, id);
