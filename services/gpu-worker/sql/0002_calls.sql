-- Paid calls at hosted providers: what a claim knows of its job, the ledger, and what a day's caps have left.

-- spent so far = base_usd + prior_usd + job_usd. A job that is stored may still be asked for by its id, so what it
-- cost (job_usd) is counted once, however many fences ask; job_fence is the fence that paid for it.
ALTER TABLE gpu_worker.claims
    ADD COLUMN billed boolean NOT NULL DEFAULT false,
    ADD COLUMN job text,
    ADD COLUMN job_fence bigint,
    ADD COLUMN job_usd numeric NOT NULL DEFAULT 0 CHECK (job_usd >= 0),
    ADD COLUMN job_at timestamptz,
    ADD CONSTRAINT claims_job CHECK ((job IS NULL) = (job_fence IS NULL) AND (job IS NULL) = (job_at IS NULL)
        AND (job IS NOT NULL OR job_usd = 0));

-- The ledger: one row per (candidate, hop, fence) that asked a provider, written before it was asked.
-- expected_usd is what may be billed for it, also where it asks after an earlier fence's job; actual_usd what the provider
-- said, null until it does; counted_usd is what the candidate is said to have paid for it. The counted amounts of a
-- finished claim's calls add up to its prior_usd + job_usd.
CREATE TABLE gpu_worker.calls (
    candidate_id uuid NOT NULL,
    hop integer NOT NULL,
    fence bigint NOT NULL,
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    key text NOT NULL,
    jobs text[] NOT NULL DEFAULT '{}',
    day date NOT NULL,
    expected_usd numeric NOT NULL CHECK (expected_usd >= 0),
    actual_usd numeric CHECK (actual_usd >= 0),
    counted_usd numeric NOT NULL DEFAULT 0 CHECK (counted_usd >= 0),
    outcome text,
    again boolean NOT NULL DEFAULT false,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    PRIMARY KEY (candidate_id, hop, fence)
);
CREATE INDEX calls_of_a_day ON gpu_worker.calls (day, provider, tenant);
CREATE INDEX calls_old ON gpu_worker.calls (ended_at);

-- What a day's calls have set aside and spent, one row per cap that somebody has configured; '' stands for all.
CREATE TABLE gpu_worker.spending (
    day date NOT NULL,
    provider text NOT NULL,
    tenant text NOT NULL,
    reserved_usd numeric NOT NULL,
    spent_usd numeric NOT NULL,
    PRIMARY KEY (day, provider, tenant)
);
