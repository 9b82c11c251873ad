-- name: end_requests
-- Remember that requests have ended; said twice it changes nothing.
INSERT INTO gpu_worker.ended (tenant, request_id)
SELECT tenant, request_id FROM unnest($1::text[], $2::uuid[]) AS closed (tenant, request_id)
ORDER BY tenant, request_id ON CONFLICT DO NOTHING

-- name: open_claims
-- Claim candidates' hops for the first time, only where nobody has and the request has not ended. By key, so that two
-- workers with the same ones wait for each other instead of locking crosswise. On a device of our own the price is at
-- risk from here on; where a provider sends bills, from `begin_call` on (ledger.sql).
INSERT INTO gpu_worker.claims AS c (candidate_id, hop, tenant, request_id, pool, state, fence, owner, lease_until,
    base_usd, price_usd, limit_usd, billed, at_risk_usd, origin, record_key, record_value, record_headers, recorded_ms)
SELECT n.candidate_id, n.hop, n.tenant, n.request_id, $1, 'live', 1, $2, clock_timestamp() + make_interval(secs => $3),
    n.base_usd, n.price_usd, n.limit_usd, n.billed,
    CASE WHEN NOT n.billed AND n.base_usd + n.price_usd <= n.limit_usd THEN n.price_usd ELSE 0 END,
    n.origin, n.record_key, n.record_value, n.record_headers::jsonb, n.recorded_ms
FROM unnest($4::uuid[], $5::int[], $6::text[], $7::uuid[], $8::numeric[], $9::numeric[], $10::numeric[],
        $11::boolean[], $12::text[], $13::bytea[], $14::bytea[], $15::text[], $16::bigint[])
    AS n (candidate_id, hop, tenant, request_id, base_usd, price_usd, limit_usd, billed, origin, record_key,
        record_value, record_headers, recorded_ms)
WHERE NOT EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = n.tenant AND e.request_id = n.request_id)
ORDER BY n.candidate_id, n.hop
ON CONFLICT (candidate_id, hop) DO NOTHING
RETURNING c.*

-- name: read_claim
-- The claim as it stands.
SELECT * FROM gpu_worker.claims WHERE candidate_id = $1 AND hop = $2

-- name: reopen_claim
-- A replay of a claim that ended in a dead letter opens it again with a higher fence, unless its request has ended.
-- The replay's record becomes the one that opened it; a redelivery of that very record does not open it once more.
UPDATE gpu_worker.claims AS c
SET state = 'live', outcome = NULL, detail = '{}', acknowledged = false, finished_at = NULL, fence = c.fence + 1,
    owner = $3, lease_until = clock_timestamp() + make_interval(secs => $4),
    at_risk_usd = CASE WHEN NOT c.billed AND c.base_usd + c.prior_usd + c.price_usd <= c.limit_usd
        THEN c.price_usd ELSE 0 END,
    origin = $5, record_key = $6, record_value = $7, record_headers = $8, recorded_ms = $9
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.state = 'done' AND c.outcome IN ('exhausted', 'dead') AND c.origin <> $5
    AND NOT EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id)
RETURNING c.*

-- name: settle_dead
-- A claim that ended in a dead letter becomes a final failure: its request has ended, or an operator discarded it.
UPDATE gpu_worker.claims AS c
SET outcome = $3, acknowledged = false, lease_until = clock_timestamp()
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.state = 'done' AND c.outcome IN ('exhausted', 'dead')
    AND ($3 <> 'ended'
        OR EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id))
RETURNING c.*

-- name: discard_unclaimed
-- An operator gave up a record that nobody had claimed: a finished claim without any work.
INSERT INTO gpu_worker.claims AS c (candidate_id, hop, tenant, request_id, pool, state, fence, owner, lease_until,
    base_usd, price_usd, limit_usd, origin, record_key, record_value, record_headers, recorded_ms, outcome, finished_at)
VALUES ($1, $2, $3, $4, $5, 'done', 1, $6, clock_timestamp(), $7, $8, $9, $10, $11, $12, $13, $14, 'discarded',
    clock_timestamp())
ON CONFLICT (candidate_id, hop) DO NOTHING
RETURNING c.*

-- name: finish_claims
-- What fences came to, each only while it is still the fence; what they paid is counted. A provider's job of which
-- nothing is known yet (job_usd is not null) stays, for a replay to ask for.
UPDATE gpu_worker.claims AS c
SET state = 'done', outcome = n.outcome, detail = n.detail, prior_usd = c.prior_usd + n.paid_usd, at_risk_usd = 0,
    job = CASE WHEN n.job_usd IS NOT NULL THEN c.job END, job_usd = coalesce(n.job_usd, 0),
    job_fence = CASE WHEN n.job_usd IS NOT NULL THEN c.job_fence END,
    job_at = CASE WHEN n.job_usd IS NOT NULL THEN c.job_at END,
    acknowledged = false, lease_until = clock_timestamp(), finished_at = clock_timestamp()
FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::jsonb[], $6::numeric[], $7::numeric[])
    AS n (candidate_id, hop, fence, outcome, detail, paid_usd, job_usd)
WHERE c.candidate_id = n.candidate_id AND c.hop = n.hop AND c.state = 'live' AND c.fence = n.fence
RETURNING c.*

-- name: bury_claim
-- The handler failed: the claim ends as dead under its fence, with everything that it may have paid.
UPDATE gpu_worker.claims AS c
SET state = 'done', outcome = 'dead', detail = $4, prior_usd = c.prior_usd + c.at_risk_usd, at_risk_usd = 0,
    acknowledged = false, lease_until = clock_timestamp(), finished_at = clock_timestamp()
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.state = 'live' AND c.fence = $3
RETURNING c.*

-- name: renew_leases
-- Keep the leases of claims this process works on; what does not come back has another owner.
UPDATE gpu_worker.claims AS c SET lease_until = clock_timestamp() + make_interval(secs => $4)
FROM unnest($1::uuid[], $2::int[], $3::bigint[]) AS mine (candidate_id, hop, fence)
WHERE c.candidate_id = mine.candidate_id AND c.hop = mine.hop AND c.fence = mine.fence AND c.state = 'live'
RETURNING c.candidate_id, c.hop

-- name: give_back
-- A claim whose work never began: free for anyone at once, and its price is not at risk.
UPDATE gpu_worker.claims SET lease_until = clock_timestamp(), at_risk_usd = CASE WHEN $4 THEN at_risk_usd ELSE 0 END
WHERE candidate_id = $1 AND hop = $2 AND fence = $3 AND state = 'live'

-- name: leave_held
-- A claim whose record was held by a switch: nobody's, until the record comes back or a day has passed.
UPDATE gpu_worker.claims SET owner = '', lease_until = clock_timestamp() + interval '1 day',
    at_risk_usd = CASE WHEN $4 THEN at_risk_usd ELSE 0 END
WHERE candidate_id = $1 AND hop = $2 AND fence = $3 AND state = 'live'

-- name: take_held
-- The record of a claim that was left held came back: take it over at once.
UPDATE gpu_worker.claims AS c
SET fence = c.fence + 1, owner = $3, lease_until = clock_timestamp() + make_interval(secs => $4),
    prior_usd = c.prior_usd + c.at_risk_usd,
    at_risk_usd = CASE WHEN NOT c.billed AND c.base_usd + c.prior_usd + c.at_risk_usd + c.price_usd <= c.limit_usd
        THEN c.price_usd ELSE 0 END
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.state = 'live' AND c.owner = ''
    AND NOT EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id)
RETURNING c.*

-- name: take_over
-- Claims of this pool whose owner vanished, each under a higher fence: its lease is over (database time), or this
-- process has its place ($5).
-- What the earlier fence may have paid counts as spent; what a provider's job may have cost stays with the job, for the
-- new fence to ask for it. Claims of ended requests are left to end_expired.
WITH lost AS (
    SELECT candidate_id, hop FROM gpu_worker.claims c
    WHERE pool = $1 AND NOT acknowledged AND state = 'live'
        AND (lease_until < clock_timestamp() OR ($5 <> '' AND starts_with(owner, $5) AND owner <> $3))
        AND NOT EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id)
    ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE gpu_worker.claims AS c
SET fence = c.fence + 1, owner = $3, lease_until = clock_timestamp() + make_interval(secs => $4),
    prior_usd = c.prior_usd + c.at_risk_usd,
    at_risk_usd = CASE WHEN NOT c.billed AND c.base_usd + c.prior_usd + c.at_risk_usd + c.price_usd <= c.limit_usd
        THEN c.price_usd ELSE 0 END
FROM lost
WHERE c.candidate_id = lost.candidate_id AND c.hop = lost.hop
    AND NOT EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id)
RETURNING c.*

-- name: end_expired
-- Claims whose owner vanished and whose request has ended: done, with what may have been paid, and never worked on.
WITH lost AS (
    SELECT c.candidate_id, c.hop FROM gpu_worker.claims c
    JOIN gpu_worker.ended e ON e.tenant = c.tenant AND e.request_id = c.request_id
    WHERE c.pool = $1 AND NOT c.acknowledged AND c.state = 'live'
        AND (c.lease_until < clock_timestamp() OR c.owner = '')
    ORDER BY c.lease_until LIMIT $2 FOR UPDATE OF c SKIP LOCKED
)
UPDATE gpu_worker.claims AS c
SET state = 'done', outcome = 'ended', fence = c.fence + 1, owner = $3, prior_usd = c.prior_usd + c.at_risk_usd,
    at_risk_usd = 0, acknowledged = false, lease_until = clock_timestamp(), finished_at = clock_timestamp()
FROM lost WHERE c.candidate_id = lost.candidate_id AND c.hop = lost.hop
RETURNING c.*

-- name: unacknowledged
-- Finished claims whose event was never acknowledged, some time after their end; looked at again as much later.
WITH quiet AS (
    SELECT candidate_id, hop FROM gpu_worker.claims
    WHERE pool = $1 AND NOT acknowledged AND state = 'done'
        AND lease_until < clock_timestamp() - make_interval(secs => $3)
    ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE gpu_worker.claims AS c SET lease_until = clock_timestamp() FROM quiet
WHERE c.candidate_id = quiet.candidate_id AND c.hop = quiet.hop
RETURNING c.*

-- name: acknowledge
-- The events of these fences are acknowledged by the broker.
UPDATE gpu_worker.claims AS c SET acknowledged = true
FROM unnest($1::uuid[], $2::int[], $3::bigint[]) AS told (candidate_id, hop, fence)
WHERE c.candidate_id = told.candidate_id AND c.hop = told.hop AND c.fence = told.fence AND c.state = 'done'

-- name: forget_claims
-- Acknowledged claims that no record can ask for any more: routed records live 7 days, dead letters 30.
DELETE FROM gpu_worker.claims WHERE (candidate_id, hop) IN (
    SELECT candidate_id, hop FROM gpu_worker.claims
    WHERE acknowledged AND finished_at < clock_timestamp() - make_interval(days => $1) LIMIT 1000)

-- name: forget_ended
-- Ended requests that no record can name any more.
DELETE FROM gpu_worker.ended WHERE (tenant, request_id) IN (
    SELECT tenant, request_id FROM gpu_worker.ended WHERE ended_at < clock_timestamp() - make_interval(days => $1) LIMIT 1000)

-- name: standing
-- How these claims stand, with what they spent over all hops and fences, and whether their request has ended.
SELECT c.candidate_id, c.hop, c.state, c.outcome, c.limit_usd, c.base_usd + c.prior_usd + c.job_usd AS spent_usd,
    EXISTS (SELECT FROM gpu_worker.ended e WHERE e.tenant = c.tenant AND e.request_id = c.request_id) AS ended
FROM gpu_worker.claims c
JOIN unnest($1::uuid[], $2::int[]) AS asked (candidate_id, hop) ON c.candidate_id = asked.candidate_id AND c.hop = asked.hop
