-- Verdicts of the scorer: nothing is judged twice (contract 3.2 rule 8).

CREATE SCHEMA IF NOT EXISTS scorer;

CREATE TABLE scorer.verdicts (
    candidate_id uuid NOT NULL,
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    tenant text NOT NULL,
    request_id uuid NOT NULL,
    verdict text NOT NULL,
    gate_version text NOT NULL,
    scored jsonb NOT NULL,
    scored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (candidate_id, sha256)
);

CREATE INDEX ON scorer.verdicts (scored_at);
