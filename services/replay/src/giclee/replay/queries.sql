-- name: index_dead_letter
-- A dead letter as it was read; a duplicate of one that is known changes nothing.
INSERT INTO replay.dead_letters (
    dlq_id, stage, dead_class, error_type, message, fingerprint, attempts, tenant, request_id, candidate_id,
    provider, model, paid_usd, replay_count, service_version, original_topic, original_partition, original_offset,
    dlq_topic, dlq_partition, dlq_offset, key, value, headers, died_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)
ON CONFLICT (dlq_id) DO NOTHING;

-- name: index_held
-- A held record as it was read; the same record held again after a release waits again.
INSERT INTO replay.held (held_id, stage, scope, topic, key, value, headers) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (held_id) DO NOTHING;

-- name: select_dead_letters
-- A page of dead letters, newest first, without their bytes; every filter is optional.
SELECT dlq_id, state, stage, dead_class, error_type, message, fingerprint, attempts, tenant, request_id, candidate_id,
    provider, model, paid_usd, replay_count, service_version, original_topic, original_partition, original_offset,
    dlq_topic, dlq_partition, dlq_offset, died_at, headers @> '[["dlq-omitted-bytes"]]' AS omitted
FROM replay.dead_letters
WHERE ($1::text IS NULL OR original_topic = $1) AND ($2::text IS NULL OR stage = $2)
  AND ($3::text IS NULL OR dead_class = $3) AND ($4::text IS NULL OR error_type = $4)
  AND ($5::text IS NULL OR fingerprint = $5) AND ($6::text IS NULL OR tenant = $6)
  AND ($7::uuid IS NULL OR request_id = $7) AND ($8::text IS NULL OR state = $8)
  AND ($9::timestamptz IS NULL OR died_at >= $9) AND ($10::timestamptz IS NULL OR died_at < $10)
  AND ($11::timestamptz IS NULL OR (died_at, dlq_id) < ($11, $12::uuid))
ORDER BY died_at DESC, dlq_id DESC LIMIT $13;

-- name: count_dead_letters
-- How many dead letters there are per stage, class and state under the same filters.
SELECT stage, dead_class, state, count(*) AS count FROM replay.dead_letters
WHERE ($1::text IS NULL OR original_topic = $1) AND ($2::text IS NULL OR stage = $2)
  AND ($3::text IS NULL OR dead_class = $3) AND ($4::text IS NULL OR error_type = $4)
  AND ($5::text IS NULL OR fingerprint = $5) AND ($6::text IS NULL OR tenant = $6)
  AND ($7::uuid IS NULL OR request_id = $7) AND ($8::text IS NULL OR state = $8)
  AND ($9::timestamptz IS NULL OR died_at >= $9) AND ($10::timestamptz IS NULL OR died_at < $10)
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3;

-- name: one_dead_letter
-- One dead letter with its bytes.
SELECT * FROM replay.dead_letters WHERE dlq_id = $1;

-- name: some_dead_letters
-- Those of these ids that there are, without their bytes.
SELECT dlq_id, state, stage, original_topic, original_partition, original_offset, replay_count,
    headers @> '[["dlq-omitted-bytes"]]' AS omitted
FROM replay.dead_letters WHERE dlq_id = ANY($1::uuid[]);

-- name: claim_for_replay
-- Take open dead letters for one run; a row that another operator has, or that is done, is not returned.
UPDATE replay.dead_letters SET state = 'replaying', run_id = $2, changed_at = clock_timestamp()
WHERE dlq_id IN (
    SELECT dlq_id FROM replay.dead_letters
    WHERE dlq_id = ANY($1::uuid[]) AND (state = 'open' OR (state = 'replayed' AND $3))
    FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: end_replay
-- The broker has them, or will never take them: this run is done with them.
UPDATE replay.dead_letters SET state = $3, changed_at = clock_timestamp()
WHERE dlq_id = ANY($1::uuid[]) AND run_id = $2 AND state = 'replaying';

-- name: claim_unfinished
-- Claimed, but never marked: whoever claimed them died. Claimed anew for the same run; sent again, since a replay is
-- idempotent.
UPDATE replay.dead_letters SET changed_at = clock_timestamp()
WHERE dlq_id IN (
    SELECT dlq_id FROM replay.dead_letters
    WHERE state = 'replaying' AND changed_at < clock_timestamp() - interval '30 seconds'
    ORDER BY changed_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: waiting_held
-- Records that waited under one of these scopes at a time, oldest first; those that another replica has are passed by.
SELECT * FROM replay.held WHERE state = 'waiting' AND scope = ANY($1::text[]) AND held_at <= $2
ORDER BY held_at LIMIT $3
FOR UPDATE SKIP LOCKED;

-- name: now
-- The one clock that decides.
SELECT clock_timestamp();

-- name: waiting_scopes
-- How many records wait under which switch.
SELECT scope, count(*) AS count FROM replay.held WHERE state = 'waiting' GROUP BY scope;

-- name: release_held
-- The broker has them again: they no longer wait.
DELETE FROM replay.held WHERE held_id = ANY($1::uuid[]);

-- name: note
-- Who did what, and why.
INSERT INTO replay.audit (actor, action, reason, run_id, details) VALUES ($1, $2, $3, $4, $5);
