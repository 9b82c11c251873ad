-- The choice for each wave of candidates, made once: contract 3.2, rule 2.
CREATE SCHEMA IF NOT EXISTS router;

CREATE TABLE router.waves (
    tenant        text        NOT NULL,
    request_id    uuid        NOT NULL,
    wave          integer     NOT NULL,
    first_index   integer     NOT NULL,
    count         integer     NOT NULL CHECK (count > 0),
    limit_usd     numeric     NOT NULL,
    choice        jsonb       NOT NULL,  -- the chain, and why other models are not in it
    tables        text        NOT NULL,  -- version of the tables it was chosen by
    closes_by     timestamptz NOT NULL,
    decided_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, request_id, wave)
);

CREATE INDEX waves_closes_by ON router.waves (closes_by);
