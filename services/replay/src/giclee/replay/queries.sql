-- name: selected
-- The condition that every query with a selection has in place of SELECTED.
    ($1::text IS NULL OR original_topic = $1) AND ($2::text IS NULL OR stage = $2)
    AND ($3::text IS NULL OR dead_class = $3) AND ($4::text IS NULL OR error_type = $4)
    AND ($5::text IS NULL OR fingerprint = $5) AND ($6::text IS NULL OR service_version = $6)
    AND ($7::text IS NULL OR provider = $7) AND ($8::text IS NULL OR model = $8)
    AND ($9::text IS NULL OR tenant = $9) AND ($10::uuid IS NULL OR request_id = $10)
    AND ($11::text IS NULL OR batch_id = $11) AND ($12::bytea IS NULL OR key = $12)
    AND ($13::int IS NULL OR original_partition = $13)
    AND ($14::bigint IS NULL OR original_offset BETWEEN $14 AND $15::bigint)
    AND ($16::text IS NULL OR state = $16)
    AND ($17::uuid IS NULL OR run_id = $17 OR back_from = $17)
    AND ($18::timestamptz IS NULL OR died_at >= $18) AND ($19::timestamptz IS NULL OR died_at < $19)
    AND ($20::uuid[] IS NULL OR dlq_id = ANY($20))

-- name: index_dead_letters
-- Dead letters as they were read; a duplicate of one that is known changes nothing.
INSERT INTO replay.dead_letters (
    dlq_id, stage, dead_class, error_type, message, fingerprint, attempts, tenant, request_id, candidate_id, batch_id,
    provider, model, paid_usd, cost_max_usd, replay_count, service_version, original_topic, original_partition,
    original_offset, dlq_topic, dlq_partition, dlq_offset, key, omitted, back_from, died_at)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[], $9::uuid[],
    $10::uuid[], $11::text[], $12::text[], $13::text[], $14::numeric[], $15::numeric[], $16::int[], $17::text[],
    $18::text[], $19::int[], $20::bigint[], $21::text[], $22::int[], $23::bigint[], $24::bytea[], $25::boolean[],
    $26::uuid[], $27::timestamptz[])
ON CONFLICT (dlq_id) DO NOTHING;

-- name: index_held
-- A held record as it was read; the same record held again after a release waits again.
INSERT INTO replay.held (held_id, stage, scope, topic, key, value, headers) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (held_id) DO NOTHING;

-- name: page
-- A page of dead letters, newest first.
SELECT * FROM replay.dead_letters
WHERE SELECTED AND ($21::timestamptz IS NULL OR (died_at, dlq_id) < ($21, $22::uuid))
ORDER BY died_at DESC, dlq_id DESC LIMIT $23;

-- name: oldest
-- The oldest dead letters of a selection, behind a place, as they were: for exports and preflights.
SELECT * FROM replay.dead_letters
WHERE SELECTED AND ($21::timestamptz IS NULL OR (died_at, dlq_id) > ($21, $22::uuid))
ORDER BY died_at, dlq_id LIMIT $23;

-- name: counts
-- How many dead letters there are per stage, class and state under a selection.
SELECT stage, dead_class, state, count(*) AS count FROM replay.dead_letters WHERE SELECTED
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3;

-- name: clusters
-- Dead letters by cause, most first.
SELECT fingerprint, stage, dead_class, min(error_type) AS error_type, min(message) AS message, count(*) AS count,
    count(*) FILTER (WHERE state = 'open') AS open, count(*) FILTER (WHERE state = 'replaying') AS replaying,
    count(*) FILTER (WHERE state = 'replayed') AS replayed, count(*) FILTER (WHERE state = 'parked') AS parked,
    count(*) FILTER (WHERE state = 'discarded') AS discarded, min(died_at) AS first_seen, max(died_at) AS last_seen,
    (array_agg(DISTINCT tenant) FILTER (WHERE tenant IS NOT NULL))[1:10] AS tenants,
    (array_agg(DISTINCT service_version))[1:10] AS service_versions,
    coalesce(sum(paid_usd), 0) AS paid_usd, coalesce(sum(cost_max_usd), 0) AS cost_max_usd
FROM replay.dead_letters WHERE SELECTED
GROUP BY fingerprint, stage, dead_class ORDER BY count DESC, last_seen DESC LIMIT $21;

-- name: one_dead_letter
-- One dead letter.
SELECT * FROM replay.dead_letters WHERE dlq_id = $1;

-- name: one_at_a_time
-- Whoever takes letters waits for whoever does so now: it locks more than it takes, and would leave nothing to others.
SELECT pg_advisory_xact_lock(hashtext('replay.dead_letters'));

-- name: set_aside
-- Letters of one state to another, at most so many, oldest first: parked, released. The id of the deed stays with them.
WITH chosen AS (
    SELECT dlq_id FROM replay.dead_letters WHERE SELECTED AND state = $21::text
    ORDER BY died_at, dlq_id LIMIT $22::int FOR UPDATE SKIP LOCKED)
UPDATE replay.dead_letters d
SET state = $23::text, operations = operations || $24::uuid, changed_at = clock_timestamp()
FROM chosen WHERE d.dlq_id = chosen.dlq_id;

-- name: freeze
-- Take letters for one run, oldest first, while the most that they may cost stays within $27; what another operator
-- has, or what is done, is not taken. A limit of money leaves out letters that cannot tell what they may cost.
WITH chosen AS (
    SELECT dlq_id, died_at, cost_max_usd FROM replay.dead_letters
    WHERE SELECTED AND NOT (omitted AND $21::text = 'replay') AND original_topic = ANY($22::text[])
      AND (state = 'open' OR (state = 'parked' AND $21 = 'discard') OR (state = 'replayed' AND $23::boolean))
      AND (replay_count < $24::int OR $23 OR $21 = 'discard')
      AND ($27::numeric IS NULL OR cost_max_usd <= $27)
    ORDER BY died_at, dlq_id LIMIT $25::int FOR UPDATE SKIP LOCKED),
summed AS (SELECT dlq_id, sum(coalesce(cost_max_usd, 0)) OVER (ORDER BY died_at, dlq_id) AS upto FROM chosen),
taken AS (
    UPDATE replay.dead_letters d
    SET state = 'replaying', run_id = $26::uuid, operations = operations || $26, sent_partition = NULL,
        sent_offset = NULL, changed_at = clock_timestamp()
    FROM summed WHERE d.dlq_id = summed.dlq_id AND ($27 IS NULL OR summed.upto <= $27)
    RETURNING d.cost_max_usd)
SELECT count(*) AS total, coalesce(sum(cost_max_usd), 0) AS cost_max_usd FROM taken;

-- name: make_run
-- A run whose letters were taken in the same transaction.
INSERT INTO replay.runs (run_id, action, state, actor, reason, selection, again, canary, rate_per_s, max_cost_usd, patch,
    total, cost_max_usd, finished_at)
VALUES ($1, $2, CASE WHEN $12 = 0 THEN 'done' WHEN $7 > 0 THEN 'canary' ELSE 'running' END, $3, $4, $5, $6, $7, $8, $9,
    $10, $12, $11, CASE WHEN $12 = 0 THEN clock_timestamp() END);

-- name: one_run
-- A run, with what came back of it.
SELECT r.*, (SELECT count(*) FROM replay.dead_letters d WHERE d.back_from = r.run_id) AS came_back
FROM replay.runs r WHERE run_id = $1;

-- name: page_of_runs
-- Runs, newest first.
SELECT r.*, (SELECT count(*) FROM replay.dead_letters d WHERE d.back_from = r.run_id) AS came_back
FROM replay.runs r WHERE ($1::text IS NULL OR state = $1) AND ($2::bigint IS NULL OR number < $2)
ORDER BY number DESC LIMIT $3;

-- name: take_run
-- A run that nobody works on, ours from now on.
UPDATE replay.runs SET owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE run_id = (
    SELECT run_id FROM replay.runs
    WHERE state IN ('canary', 'running', 'aborting') AND lease_until < clock_timestamp()
    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *;

-- name: keep_run
-- The run as it stands while it is ours; nothing when another took it.
UPDATE replay.runs SET lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE run_id = $1 AND owner = $2 RETURNING *;

-- name: leave_run
-- Nobody works on it; whoever comes first may.
UPDATE replay.runs SET owner = NULL, lease_until = '-infinity' WHERE run_id = $1 AND owner = $2;

-- name: move_run
-- A run from one of some states to another, by compare-and-set. One that was paused over its canaries goes back to
-- them. What came back before a run was resumed is not held against it.
UPDATE replay.runs SET why = $4, changed_at = clock_timestamp(),
    state = CASE WHEN $3 = 'running' AND state = 'paused' AND canary > 0 AND sent <= canary THEN 'canary' ELSE $3 END,
    resumed_at = CASE WHEN $3 = 'running' AND NOT (state = 'paused' AND sent <= canary) THEN clock_timestamp()
        ELSE resumed_at END,
    finished_at = CASE WHEN $3 IN ('done', 'aborted') THEN clock_timestamp() END
WHERE run_id = $1 AND state = ANY($2::text[]) RETURNING *;

-- name: count_run
-- So many more were sent, and refused.
UPDATE replay.runs SET sent = sent + $2, refused = refused + $3, changed_at = clock_timestamp() WHERE run_id = $1;

-- name: next_letters
-- What a run has yet to send, in the order of the topics.
SELECT dlq_id, stage, original_topic, dlq_topic, dlq_partition, dlq_offset, tenant, request_id, candidate_id, paid_usd,
    cost_max_usd, omitted
FROM replay.dead_letters WHERE run_id = $1 AND state = 'replaying'
ORDER BY dlq_topic, dlq_partition, dlq_offset LIMIT $2;

-- name: last_sent
-- Where the newest replays of a run lie, since it was last resumed.
SELECT d.stage, d.original_topic, d.sent_partition, d.sent_offset
FROM replay.dead_letters d JOIN replay.runs r USING (run_id)
WHERE d.run_id = $1 AND d.state IN ('replayed', 'discarded') AND d.sent_offset >= 0 AND d.changed_at > r.resumed_at
ORDER BY d.changed_at DESC LIMIT $2;

-- name: end_letters
-- The broker has them, and where: this run is done with them.
UPDATE replay.dead_letters d
SET state = $2, sent_partition = one.partition, sent_offset = one.place, changed_at = clock_timestamp()
FROM unnest($3::uuid[], $4::int[], $5::bigint[]) AS one (dlq_id, partition, place)
WHERE d.dlq_id = one.dlq_id AND run_id = $1 AND state = 'replaying';

-- name: give_up_letters
-- Letters that a run had and does not send, each to the state that it is in from now on.
UPDATE replay.dead_letters SET state = $3, changed_at = clock_timestamp()
WHERE run_id = $1 AND state = 'replaying' AND ($2::uuid[] IS NULL OR dlq_id = ANY($2));

-- name: came_back
-- Which of these places of a topic, where replays of a run lie, were dead letters again.
SELECT d.original_partition AS partition, d.original_offset AS place
FROM replay.dead_letters d
JOIN unnest($3::int[], $4::bigint[]) AS sent (partition, place)
    ON d.original_partition = sent.partition AND d.original_offset = sent.place
WHERE d.original_topic = $1 AND d.back_from = $2;

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
-- Who did what, and why, to which letters one by one; without letters once.
INSERT INTO replay.audit (actor, action, reason, run_id, dlq_id, details)
SELECT $1, $2, $3, $4, dlq_id, details FROM unnest($5::uuid[], $6::jsonb[]) AS one (dlq_id, details);

-- name: audited
-- What was done to a letter or by a run, newest first; without either, everything.
SELECT at, actor, action, reason, run_id, dlq_id, details FROM replay.audit
WHERE ($1::uuid IS NULL AND $2::uuid[] IS NULL) OR dlq_id = $1 OR (run_id = ANY($2) AND ($1 IS NULL OR dlq_id IS NULL))
ORDER BY id DESC LIMIT $3;

-- name: deeds
-- What was done by these names, newest first.
SELECT at, actor, action, reason, details FROM replay.audit WHERE action = ANY ($1::text[]) ORDER BY id DESC LIMIT $2
