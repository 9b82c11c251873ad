-- Dead letters, held records, switches set and everything that operators did.
CREATE SCHEMA replay;

-- One row per fault: (stage, topic, partition, offset) is folded into dlq_id, so a duplicate after a crash
-- meets its row. The bytes are kept as they were: an index that loses them could not put anything back.
CREATE TABLE replay.dead_letters (
    dlq_id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replaying', 'replayed', 'parked', 'discarded')),
    stage text NOT NULL,
    dead_class text NOT NULL,
    error_type text NOT NULL,
    message text NOT NULL,
    fingerprint text NOT NULL,
    attempts int NOT NULL,
    tenant text,
    request_id uuid,
    candidate_id uuid,
    provider text,
    model text,
    paid_usd numeric,
    replay_count int NOT NULL,
    service_version text NOT NULL,
    original_topic text NOT NULL,
    original_partition int NOT NULL,
    original_offset bigint NOT NULL,
    dlq_topic text NOT NULL,
    dlq_partition int NOT NULL,
    dlq_offset bigint NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    died_at timestamptz NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id uuid,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_newest ON replay.dead_letters (died_at DESC, dlq_id);
CREATE INDEX dead_letters_by_request ON replay.dead_letters (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX dead_letters_sending ON replay.dead_letters (changed_at) WHERE state = 'replaying';

-- What a switch holds back. `held_id` is the stage and the place of the record in its source topic.
CREATE TABLE replay.held (
    held_id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'released')),
    stage text NOT NULL,
    scope text NOT NULL,
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX held_waiting ON replay.held (scope) WHERE state = 'waiting';

-- One row per thing that an operator did.
CREATE TABLE replay.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    reason text NOT NULL,
    run_id uuid,
    details jsonb NOT NULL
);
