-- What the reconciler asks of the database. Times are the database's.

-- name: overdue
-- Requests that should have ended $1 ago, by how far their expiry came; the longest overdue first, and all counted.
SELECT tenant, request_id, closes_by, expiry_sent_at IS NOT NULL AS expiry_sent, count(*) OVER () AS total,
    count(*) FILTER (WHERE expiry_sent_at IS NULL) OVER () AS unsent,
    EXISTS (SELECT 1 FROM replay.seen_orders o WHERE o.tenant = r.tenant AND o.request_id = r.request_id
        AND o.closed_at IS NOT NULL) AS closed_at_publisher
FROM replay.seen_requests r WHERE NOT ended AND closes_by < clock_timestamp() - $1::interval
ORDER BY closes_by LIMIT 5;

-- name: stalled
-- Open requests of which something is a dead letter.
SELECT tenant, request_id, count(*) OVER () AS total FROM replay.seen_requests
WHERE stalled AND NOT ended ORDER BY accepted_at LIMIT 5;

-- name: open_letters
-- Dead letters that wait for an operator, per stage and class, with the age of the oldest in seconds.
SELECT stage, dead_class, count(*) AS count,
    extract(epoch FROM clock_timestamp() - min(died_at))::float8 AS oldest_s
FROM replay.dead_letters WHERE state = 'open' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2;

-- name: outboxes
-- What is not sent yet, per service and lane, with the age of the oldest row in seconds.
SELECT service, lane, count(*) AS count, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_s
FROM replay.seen_outboxes GROUP BY 1, 2 ORDER BY 1, 2;

-- name: some_approvals
-- Approved assets behind a place, in the order of their ids, which are as good as random.
SELECT asset_id, document FROM replay.seen_assets
WHERE status = 'approved' AND asset_id > $1 ORDER BY asset_id LIMIT $2;

-- name: referenced
-- Which of the keys $1, of tenants $2, requests $3 and candidates $4 (null where the key names none), may still be
-- needed: a fact or asset names it, its request is open, its candidate has a claim, or a dead letter may come back.
SELECT DISTINCT k.key
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[]) AS k (key, tenant, request_id, candidate_id)
WHERE EXISTS (SELECT 1 FROM replay.seen_facts f WHERE f.tenant = k.tenant AND f.request_id = k.request_id
        AND (strpos(f.says, k.key) > 0 OR strpos(f.evidence, k.key) > 0))
    OR EXISTS (SELECT 1 FROM replay.seen_assets a WHERE a.tenant = k.tenant AND a.request_id = k.request_id
        AND strpos(a.document::text, k.key) > 0)
    OR EXISTS (SELECT 1 FROM replay.seen_orders o WHERE o.tenant = k.tenant AND o.request_id = k.request_id
        AND o.closed_at IS NULL)
    OR EXISTS (SELECT 1 FROM replay.seen_requests r WHERE r.tenant = k.tenant AND r.request_id = k.request_id
        AND NOT r.ended)
    OR EXISTS (SELECT 1 FROM replay.seen_claims c WHERE c.candidate_id = k.candidate_id)
    OR EXISTS (SELECT 1 FROM replay.dead_letters d WHERE d.request_id = k.request_id
        AND d.state IN ('open', 'replaying', 'parked'));

-- name: known_places
-- Where groups stood when they were last seen.
SELECT group_name, topic, partition, next_offset FROM replay.group_positions;

-- name: remember_places
-- Groups $1 stand at $4 in topics $2, partitions $3. Only what changed is written.
INSERT INTO replay.group_positions AS p (group_name, topic, partition, next_offset)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) ORDER BY 1, 2, 3
ON CONFLICT (group_name, topic, partition)
DO UPDATE SET next_offset = excluded.next_offset, seen_at = clock_timestamp()
WHERE p.next_offset <> excluded.next_offset;

-- name: note
-- What the reconciler did, beside what operators did.
INSERT INTO replay.audit (actor, action, reason, details) VALUES ($1, $2, $3, $4);
