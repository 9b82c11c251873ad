-- All SQL of intake. Times are the database's.

-- name: take_key
-- Whether this transaction is the only one that answers under an Idempotency-Key now.
SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0));

-- name: answer_under_key
-- The answer given under a key in the last 24 hours.
SELECT body_sha256, answer FROM intake.idempotency
WHERE tenant = $1 AND route = $2 AND key = $3 AND answered_at > clock_timestamp() - interval '24 hours';

-- name: remember_answer
-- Keep the answer given under a key; one that is older than 24 hours gives way.
INSERT INTO intake.idempotency (tenant, route, key, body_sha256, answer) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, route, key)
DO UPDATE SET body_sha256 = excluded.body_sha256, answer = excluded.answer, answered_at = excluded.answered_at;

-- name: insert_request
-- A request that was accepted over HTTP now; nothing when anything was heard of its id before.
INSERT INTO intake.requests
    (tenant, request_id, request, accepted_at, closes_by, client_ref, batch_id, asset_type, labels)
SELECT $1, $2, $3, now, coalesce($4, now + $5::interval), $6, $7, $8, $9 FROM clock_timestamp() AS now
ON CONFLICT (tenant, request_id) DO NOTHING
RETURNING number, state, accepted_at;

-- name: fill_request
-- The same for an id that others had spoken of before the request itself came.
UPDATE intake.requests
SET request = $2, accepted_at = now, closes_by = coalesce($3, now + $4::interval),
    client_ref = $5, batch_id = $6, asset_type = $7, labels = $8
FROM clock_timestamp() AS now
WHERE number = $1 AND request IS NULL
RETURNING number, state, accepted_at;

-- name: lock_request
-- The row of one request, locked.
SELECT number, request, accepted_at, facts, cancel_sent, outcome, state, clock_timestamp() AS now
FROM intake.requests WHERE tenant = $1 AND request_id = $2 FOR UPDATE;

-- name: note_cancel
-- A caller's cancel, and that it was sent on with the request's fields.
UPDATE intake.requests SET facts = facts || $2, cancelling = true, cancel_sent = true WHERE number = $1
RETURNING state;

-- name: lock_requests
-- The rows of many requests, locked in one order so that two replicas cannot wait for each other.
SELECT r.number, r.tenant, r.request_id, r.request, r.accepted_at, r.closes_by, r.cancel_sent, r.facts,
    r.shown, r.told, r.closing_told, clock_timestamp() AS now
FROM intake.requests r
JOIN unnest($1::text[], $2::uuid[]) AS asked (tenant, request_id) USING (tenant, request_id)
ORDER BY r.number FOR UPDATE OF r;

-- name: add_requests
-- Rows for ids that nobody had heard of.
INSERT INTO intake.requests (tenant, request_id)
SELECT tenant, request_id FROM unnest($1::text[], $2::uuid[]) AS asked (tenant, request_id) ORDER BY 1, 2
ON CONFLICT DO NOTHING;

-- name: facts_of_candidates
-- What is known of these candidates.
SELECT c.number, c.candidate_id, c.facts
FROM intake.candidates c
JOIN unnest($1::bigint[], $2::uuid[]) AS asked (number, candidate_id) USING (number, candidate_id);

-- name: save_candidates
-- Candidates with their facts and the columns that follow from them.
INSERT INTO intake.candidates (number, candidate_id, index, wave, state, stalled, spent_usd, settled, facts)
SELECT * FROM jsonb_to_recordset($1) AS saved (number bigint, candidate_id uuid, index int, wave int, state text,
    stalled boolean, spent_usd numeric, settled boolean, facts jsonb)
ORDER BY number, candidate_id
ON CONFLICT (number, candidate_id) DO UPDATE SET
    index = excluded.index, wave = excluded.wave, state = excluded.state, stalled = excluded.stalled,
    spent_usd = excluded.spent_usd, settled = excluded.settled, facts = excluded.facts;

-- name: save_routes
-- What the router decided for waves; a wave has one decision, however often it is told.
INSERT INTO intake.routes (number, wave, decision)
SELECT * FROM jsonb_to_recordset($1) AS told (number bigint, wave int, decision jsonb) ORDER BY number, wave
ON CONFLICT (number, wave) DO NOTHING;

-- name: tallies
-- How many candidates of each request share a state, and what they cost.
SELECT number, state, stalled, count(*)::int AS count, count(*) FILTER (WHERE settled)::int AS settled,
    sum(spent_usd) AS spent_usd, max(wave) AS wave
FROM intake.candidates WHERE number = ANY ($1::bigint[]) GROUP BY number, state, stalled;

-- name: save_requests
-- Facts of requests and the columns that follow; a request read on the topic for the first time is filled in.
UPDATE intake.requests r SET
    facts = s.facts, stage = s.stage, stalled = s.stalled, stuck = s.stuck, cancelling = s.cancelling,
    cancel_sent = s.cancel_sent, outcome = s.outcome, closed_at = s.closed_at, closes_by = s.closes_by,
    closing_read_at = CASE WHEN s.outcome IS NULL THEN NULL ELSE coalesce(r.closing_read_at, clock_timestamp()) END,
    request = coalesce(r.request, s.request), accepted_at = coalesce(r.accepted_at, s.accepted_at),
    client_ref = coalesce(r.client_ref, s.client_ref), batch_id = coalesce(r.batch_id, s.batch_id),
    asset_type = coalesce(r.asset_type, s.asset_type), labels = coalesce(s.labels, r.labels)
FROM jsonb_to_recordset($1) AS s (number bigint, facts jsonb, stage text, stalled boolean, stuck boolean,
    cancelling boolean, cancel_sent boolean, outcome text, closed_at timestamptz, closes_by timestamptz, request text,
    accepted_at timestamptz, client_ref text, batch_id text, asset_type text, labels jsonb)
WHERE r.number = s.number
RETURNING r.number, r.state, r.held;

-- name: tell
-- Events of callers' streams, numbered by the caller of this query under the locks of the requests.
INSERT INTO intake.stream (number, id, event, document)
SELECT * FROM jsonb_to_recordset($1) AS told (number bigint, id int, event text, document text);

-- name: note_told
-- What the streams have said by now.
UPDATE intake.requests r SET told = s.told, shown = s.shown, closing_told = s.closing_told
FROM jsonb_to_recordset($1) AS s (number bigint, told int, shown jsonb, closing_told boolean)
WHERE r.number = s.number;

-- name: request
-- One request as it is shown.
SELECT * FROM intake.requests WHERE tenant = $1 AND request_id = $2 AND request IS NOT NULL;

-- name: candidates
-- The candidates of a request, in their order.
SELECT candidate_id, index, state, stalled, spent_usd, facts
FROM intake.candidates WHERE number = $1 ORDER BY index NULLS LAST, candidate_id;

-- name: routes
-- The router's decisions for a request, by wave.
SELECT wave, decision FROM intake.routes WHERE number = $1 ORDER BY wave;

-- name: page
-- Requests of a tenant by every filter of the list, newest first, before a cursor.
SELECT * FROM intake.requests
WHERE tenant = $1 AND request IS NOT NULL
    AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR outcome = $3)
    AND ($4::text IS NULL OR batch_id = $4) AND ($5::text IS NULL OR client_ref = $5)
    AND ($6::text IS NULL OR asset_type = $6) AND ($7::jsonb IS NULL OR labels @> $7)
    AND ($8::timestamptz IS NULL OR accepted_at > $8) AND ($9::timestamptz IS NULL OR closed_at > $9)
    AND ($10::bigint IS NULL OR number < $10)
ORDER BY number DESC LIMIT $11;

-- name: stream_told
-- Whether a stream has said its last word.
SELECT closing_told FROM intake.requests WHERE number = $1;

-- name: stream_after
-- What a stream says after an id.
SELECT id, event, document FROM intake.stream WHERE number = $1 AND id > $2 ORDER BY id LIMIT 100;

-- name: take_overdue
-- Requests past their closing time without a closing, once an hour each; the pause leaves the publisher its turn.
UPDATE intake.requests SET expiry_sent_at = clock_timestamp()
WHERE number IN (
    SELECT number FROM intake.requests
    WHERE outcome IS NULL AND request IS NOT NULL AND closes_by < clock_timestamp() - $1::interval
        AND (expiry_sent_at IS NULL OR expiry_sent_at < clock_timestamp() - interval '1 hour')
    ORDER BY closes_by LIMIT 100 FOR UPDATE SKIP LOCKED)
RETURNING request, accepted_at;

-- name: untold_closings
-- Closings whose approvals did not all come in time; their streams need not wait longer.
SELECT tenant, request_id FROM intake.requests
WHERE outcome IS NOT NULL AND NOT closing_told AND closing_read_at < clock_timestamp() - $1::interval
ORDER BY closing_read_at LIMIT 100 FOR UPDATE SKIP LOCKED;

-- name: set_held
-- Flag the open requests that a switch holds, and unflag the others.
UPDATE intake.requests r SET held = found.held
FROM (
    SELECT number, coalesce($1::boolean OR tenant = ANY ($2::text[]) OR batch_id = ANY ($3::text[])
        OR asset_type = ANY ($4::text[]) OR stage = ANY ($5::text[])
        OR (cardinality($6::text[]) > 0 AND request::jsonb #>> '{template,id}' = ANY ($6::text[]))
        OR (cardinality($7::text[]) > 0 AND request::jsonb #>> '{model,name}' = ANY ($7::text[])), false) AS held
    FROM intake.requests WHERE outcome IS NULL AND request IS NOT NULL
) AS found
WHERE r.number = found.number AND r.outcome IS NULL AND r.held <> found.held;

-- name: forget_answers
-- Answers under keys are kept for 24 hours.
DELETE FROM intake.idempotency WHERE answered_at < clock_timestamp() - interval '24 hours';

-- name: forget_unseen
-- What was said of ids whose request never came is kept for 7 days, as long as the topics keep it.
DELETE FROM intake.requests WHERE request IS NULL AND first_heard_at < clock_timestamp() - interval '7 days';

-- name: forget_closed
-- Ended requests are shown as long as their ids are remembered.
DELETE FROM intake.requests WHERE number IN (
    SELECT number FROM intake.requests WHERE outcome IS NOT NULL AND closed_at < clock_timestamp() - interval '400 days'
    ORDER BY number LIMIT 1000);

-- name: claim_key
-- Claim an Idempotency-Key for an answer that takes a while; nothing when it was answered or is being answered.
INSERT INTO intake.idempotency (tenant, route, key, body_sha256, claim, claimed_until)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::interval)
ON CONFLICT (tenant, route, key) DO UPDATE
SET body_sha256 = excluded.body_sha256, claim = excluded.claim, claimed_until = excluded.claimed_until,
    answer = NULL, answered_at = clock_timestamp()
WHERE idempotency.claimed_until < clock_timestamp()
    OR idempotency.answered_at < clock_timestamp() - interval '24 hours'
RETURNING true;

-- name: answer_claim
-- Give the answer under a claimed key; nothing when the claim ran out and another took it.
UPDATE intake.idempotency SET answer = $5, claim = NULL, claimed_until = NULL, answered_at = clock_timestamp()
WHERE tenant = $1 AND route = $2 AND key = $3 AND claim = $4
RETURNING true;

-- name: release_claim
-- There is no answer: the key is free again.
DELETE FROM intake.idempotency WHERE tenant = $1 AND route = $2 AND key = $3 AND claim = $4;

-- name: keep_evaluation
-- An evaluation whose caller asked for it to be kept.
INSERT INTO intake.evaluations (tenant, evaluation_id, prompt, answer) VALUES ($1, $2, $3, $4);

-- name: evaluation
-- One kept evaluation.
SELECT evaluated_at, prompt, answer FROM intake.evaluations WHERE tenant = $1 AND evaluation_id = $2;

-- name: forget_evaluations
-- Kept evaluations are shown as long as ended requests are.
DELETE FROM intake.evaluations WHERE (tenant, evaluation_id) IN (
    SELECT tenant, evaluation_id FROM intake.evaluations
    WHERE evaluated_at < clock_timestamp() - interval '400 days' ORDER BY evaluated_at LIMIT 1000);
