-- Evaluations of pictures made elsewhere: what is kept when the caller asks for it, and keys that are being answered.

-- An answer that takes seconds is not waited for inside a transaction: who answers under a key claims it, until a time.
ALTER TABLE intake.idempotency ALTER COLUMN answer DROP NOT NULL;
ALTER TABLE intake.idempotency ADD COLUMN claim uuid, ADD COLUMN claimed_until timestamptz;
ALTER TABLE intake.idempotency ADD CHECK ((answer IS NULL) = (claim IS NOT NULL AND claimed_until IS NOT NULL));

-- The verdict and what it was asked about; the picture itself is not kept.
CREATE TABLE intake.evaluations (
    tenant text NOT NULL,
    evaluation_id uuid NOT NULL,
    evaluated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    prompt text NOT NULL,
    answer jsonb NOT NULL,
    PRIMARY KEY (tenant, evaluation_id)
);
CREATE INDEX evaluations_age ON intake.evaluations (evaluated_at);
