-- Drift of scores: what was counted per asset type and model revision, and what is held back for it.

-- bins by dimension as drift.py counts them, against one version of the calibration's rows
CREATE TABLE scorer.spreads (
    asset_type text NOT NULL,
    model text NOT NULL,
    reference text NOT NULL,
    seen bigint NOT NULL DEFAULT 0,
    block integer NOT NULL DEFAULT 1,
    size integer NOT NULL DEFAULT 0,
    counts jsonb NOT NULL DEFAULT '{}',
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (asset_type, model, reference)
);

-- Nothing of this asset type and model is approved by itself while a row is not cleared. Rows stay: they are the audit.
CREATE TABLE scorer.drift (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_type text NOT NULL,
    model text NOT NULL,
    dimension text NOT NULL, -- '*': the revision was not in the calibration set
    reference text NOT NULL,
    says text NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cleared_at timestamptz,
    cleared_by text,
    cleared_because text,
    CHECK (num_nonnulls(cleared_at, cleared_by, cleared_because) IN (0, 3))
);

CREATE UNIQUE INDEX ON scorer.drift (asset_type, model, dimension, reference) WHERE cleared_at IS NULL;

-- of one request only the first image counts
CREATE INDEX ON scorer.verdicts (request_id);
