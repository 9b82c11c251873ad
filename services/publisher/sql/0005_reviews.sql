-- What people are asked to look at, and what they said. One row a candidate; `document` is the ReviewRequested.
-- pending -> given (can be undone until effective_at) -> done; withdrawn when the order ends before that.
CREATE TABLE publisher.reviews (
    candidate_id uuid PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES publisher.orders ON DELETE CASCADE,
    tenant text NOT NULL,
    asset_type text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('doubt', 'required', 'sample', 'override')),
    sha256 text NOT NULL,
    eyes smallint NOT NULL CHECK (eyes IN (1, 2)),   -- different reviewers that must pass it
    place double precision NOT NULL,                 -- of two that are due at once the smaller one is first
    document jsonb NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'given', 'done', 'withdrawn')),
    leased_by text,
    leased_until timestamptz,
    seconded_by text,                                -- the first of two who passed it
    verdict text CHECK (verdict IN ('pass', 'fail')),
    reviewer text,
    reason_codes text[] NOT NULL DEFAULT '{}',
    note text,
    seconds double precision,
    given_at timestamptz,
    effective_at timestamptz,
    look_at timestamptz,                             -- when a sweeper takes it: its effect, later after a failure
    ended_at timestamptz,
    CHECK ((state IN ('given', 'done')) <= (verdict IS NOT NULL AND reviewer IS NOT NULL AND given_at IS NOT NULL))
);
CREATE INDEX reviews_page ON publisher.reviews (tenant, state, due_at, place, candidate_id);
CREATE INDEX reviews_of_order ON publisher.reviews (order_id) WHERE state IN ('pending', 'given');
CREATE INDEX reviews_due ON publisher.reviews (look_at) WHERE state = 'given';
