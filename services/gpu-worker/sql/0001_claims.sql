-- Claims of workers on candidates, and the requests that have ended (contract 3.2 rules 4, 7 and 8).

CREATE SCHEMA IF NOT EXISTS gpu_worker;

-- Ids of closed requests. A claim, a takeover and a reopening look here in their own statement.
CREATE TABLE gpu_worker.ended (
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, request_id)
);

-- One row per (candidate, hop), with the record that opened it as it was.
-- spent so far = base_usd (earlier hops) + prior_usd (earlier fences of this hop, and this one once it is done);
-- at_risk_usd is what the fence that is live may have paid without our knowing.
CREATE TABLE gpu_worker.claims (
    candidate_id uuid NOT NULL,
    hop integer NOT NULL CHECK (hop >= 0),
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    pool text NOT NULL,
    state text NOT NULL CHECK (state IN ('live', 'done')),
    fence bigint NOT NULL CHECK (fence > 0),
    owner text NOT NULL,
    lease_until timestamptz NOT NULL,
    base_usd numeric NOT NULL CHECK (base_usd >= 0),
    price_usd numeric NOT NULL CHECK (price_usd >= 0),
    limit_usd numeric NOT NULL CHECK (limit_usd >= 0),
    prior_usd numeric NOT NULL DEFAULT 0 CHECK (prior_usd >= 0),
    at_risk_usd numeric NOT NULL DEFAULT 0 CHECK (at_risk_usd >= 0),
    origin text NOT NULL,
    record_key bytea,
    record_value bytea NOT NULL,
    record_headers jsonb NOT NULL,
    recorded_ms bigint NOT NULL,
    outcome text CHECK (outcome IN ('generated', 'routed', 'failed', 'ended', 'discarded', 'exhausted', 'dead')),
    detail jsonb NOT NULL DEFAULT '{}',
    acknowledged boolean NOT NULL DEFAULT false,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CHECK ((state = 'done') = (outcome IS NOT NULL)),
    PRIMARY KEY (candidate_id, hop)
);

-- What the sweeper looks for; finished and acknowledged claims, which are nearly all, are not in it.
CREATE INDEX claims_open ON gpu_worker.claims (pool, state, lease_until) WHERE NOT acknowledged;
CREATE INDEX claims_finished ON gpu_worker.claims (finished_at) WHERE acknowledged;

-- Facts about attempts whose handler ended in a dead letter and so could not emit them.
CREATE TABLE gpu_worker.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane text NOT NULL CHECK (lane IN ('plain', 'transactional')),
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    number bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON gpu_worker.outbox (lane, id);
