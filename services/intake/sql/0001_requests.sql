-- Requests as intake accepted or read them, and the projection that GET, the list and the event streams show.
CREATE SCHEMA intake;

-- One row per request that anything was ever heard of; `request` is null while only others spoke of it.
-- Its row lock is what the projection is made under. Columns below `facts` follow from the facts.
CREATE TABLE intake.requests (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    first_heard_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    request text,                     -- JSON as text: jsonb readers round integers beyond 64 bits
    accepted_at timestamptz,
    closes_by timestamptz,
    client_ref text,
    batch_id text,
    asset_type text,
    labels jsonb NOT NULL DEFAULT '{}',
    cancel_sent boolean NOT NULL DEFAULT false,
    expiry_sent_at timestamptz,
    facts jsonb NOT NULL DEFAULT '{}',
    stage text NOT NULL DEFAULT 'pending',
    cancelling boolean NOT NULL DEFAULT false,
    held boolean NOT NULL DEFAULT false,
    stalled boolean NOT NULL DEFAULT false,   -- a record of it is a dead letter
    stuck boolean NOT NULL DEFAULT false,     -- and nothing else of it moves
    outcome text,
    closed_at timestamptz,
    closing_read_at timestamptz,
    closing_told boolean NOT NULL DEFAULT false,
    shown jsonb NOT NULL DEFAULT '{}',        -- progress and cost, as the newest `progress` of the stream says
    told integer NOT NULL DEFAULT 0,          -- number of the newest event of the stream
    -- the one definition of what a caller sees: the closing wins, then a cancel, then the flags
    state text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN outcome IS NOT NULL THEN outcome
            WHEN cancelling THEN 'cancelling'
            WHEN held THEN 'held'
            WHEN stuck THEN 'stalled'
            ELSE stage
        END
    ) STORED,
    UNIQUE (tenant, request_id),
    CHECK ((request IS NULL) = (accepted_at IS NULL)),
    CHECK ((outcome IS NULL) = (closed_at IS NULL))
);
CREATE INDEX requests_page ON intake.requests (tenant, number DESC) WHERE request IS NOT NULL;
CREATE INDEX requests_by_batch ON intake.requests (tenant, batch_id, number DESC) WHERE batch_id IS NOT NULL;
CREATE INDEX requests_by_ref ON intake.requests (tenant, client_ref, number DESC) WHERE client_ref IS NOT NULL;
CREATE INDEX requests_by_label ON intake.requests USING gin (labels jsonb_path_ops);
CREATE INDEX requests_open ON intake.requests (closes_by) WHERE outcome IS NULL AND request IS NOT NULL;
CREATE INDEX requests_untold ON intake.requests (closing_read_at) WHERE outcome IS NOT NULL AND NOT closing_told;
CREATE INDEX requests_unseen ON intake.requests (first_heard_at) WHERE request IS NULL;

-- What is known of each candidate; the columns follow from the facts.
CREATE TABLE intake.candidates (
    number bigint NOT NULL REFERENCES intake.requests ON DELETE CASCADE,
    candidate_id uuid NOT NULL,
    index integer,
    wave integer,
    state text NOT NULL,
    stalled boolean NOT NULL,
    spent_usd numeric NOT NULL,
    settled boolean NOT NULL,
    facts jsonb NOT NULL,
    PRIMARY KEY (number, candidate_id)
);

-- What a caller's event stream says, numbered per request under the request's row lock.
CREATE TABLE intake.stream (
    number bigint NOT NULL REFERENCES intake.requests ON DELETE CASCADE,
    id integer NOT NULL,
    event text NOT NULL,
    document text NOT NULL,           -- JSON as text, as it is sent
    PRIMARY KEY (number, id)
);

-- Answers given under an Idempotency-Key, for 24 hours.
CREATE TABLE intake.idempotency (
    tenant text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
    answer jsonb NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, route, key)
);
CREATE INDEX idempotency_age ON intake.idempotency (answered_at);

-- Rows to be sent, by the relay of the bus.
CREATE TABLE intake.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane text NOT NULL CHECK (lane IN ('plain', 'transactional')),
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    number bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON intake.outbox (lane, id);
