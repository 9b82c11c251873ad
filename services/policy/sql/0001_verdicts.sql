-- One verdict per request, remembered 400 days: contract 3.2, rule 13.
CREATE SCHEMA IF NOT EXISTS policy;

CREATE TABLE policy.verdicts (
    tenant      text        NOT NULL,
    request_id  uuid        NOT NULL,
    origin      text        NOT NULL,  -- topic:partition:offset of the record that was first
    asked       jsonb       NOT NULL,  -- a digest per value that was asked
    ruling      jsonb       NOT NULL,
    accepted_at timestamptz NOT NULL,
    closes_by   timestamptz NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, request_id)
);

CREATE INDEX verdicts_decided_at ON policy.verdicts (decided_at);
