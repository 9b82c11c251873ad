-- Replay runs, what a selection asks for, and an audit by letter. Values and headers stay on the `.dlq` topics (30 days).

-- One row per replay or discard: the frozen selection is the letters that carry its id and are `replaying`.
CREATE TABLE replay.runs (
    run_id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    action text NOT NULL CHECK (action IN ('replay', 'discard')),
    state text NOT NULL
        CHECK (state IN ('canary', 'running', 'paused', 'stopped', 'aborting', 'aborted', 'done')),
    why text,
    actor text NOT NULL,
    reason text NOT NULL,
    selection jsonb NOT NULL,
    again boolean NOT NULL,
    canary int NOT NULL CHECK (canary >= 0),
    rate_per_s double precision CHECK (rate_per_s > 0),
    max_cost_usd numeric CHECK (max_cost_usd >= 0),
    patch jsonb,
    total int NOT NULL,
    sent int NOT NULL DEFAULT 0,
    refused int NOT NULL DEFAULT 0,
    cost_max_usd numeric NOT NULL,
    owner text,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resumed_at timestamptz NOT NULL DEFAULT '-infinity',
    finished_at timestamptz
);
CREATE INDEX runs_at_work ON replay.runs (number) WHERE state IN ('canary', 'running', 'aborting');

-- `operations` are the runs and the other deeds that touched a letter, oldest first; `back_from` is the run whose
-- replay this letter is what became of; `sent_*` is where its own replay lies on the original topic.
ALTER TABLE replay.dead_letters
    ADD COLUMN batch_id text,
    ADD COLUMN cost_max_usd numeric,
    ADD COLUMN omitted boolean NOT NULL DEFAULT false,
    ADD COLUMN back_from uuid,
    ADD COLUMN operations uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN sent_partition int,
    ADD COLUMN sent_offset bigint;
UPDATE replay.dead_letters SET omitted = headers @> '[["dlq-omitted-bytes"]]',
    state = CASE WHEN state = 'replaying' THEN 'open' ELSE state END;
ALTER TABLE replay.dead_letters DROP COLUMN value, DROP COLUMN headers;
-- a letter's state changes twice in a replay: room for that in its page
ALTER TABLE replay.dead_letters SET (fillfactor = 80);

DROP INDEX replay.dead_letters_sending;
CREATE INDEX dead_letters_at_work ON replay.dead_letters (run_id, dlq_topic, dlq_partition, dlq_offset)
    WHERE state = 'replaying';
CREATE INDEX dead_letters_by_run ON replay.dead_letters (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX dead_letters_by_cause ON replay.dead_letters (fingerprint, died_at);
CREATE INDEX dead_letters_by_tenant ON replay.dead_letters (tenant, died_at) WHERE tenant IS NOT NULL;
CREATE INDEX dead_letters_by_batch ON replay.dead_letters (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX dead_letters_by_place
    ON replay.dead_letters (original_topic, original_partition, original_offset);
CREATE INDEX dead_letters_back ON replay.dead_letters (back_from) WHERE back_from IS NOT NULL;

ALTER TABLE replay.audit ADD COLUMN dlq_id uuid;
CREATE INDEX audit_by_letter ON replay.audit (dlq_id) WHERE dlq_id IS NOT NULL;
CREATE INDEX audit_by_run ON replay.audit (run_id) WHERE run_id IS NOT NULL;
