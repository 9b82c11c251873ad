-- name: begin_call
-- The price is at risk, while the fence is the fence. Also where a job is asked for: it may be gone, or have failed, and
-- another be made. Comes with the day whose caps count it.
UPDATE gpu_worker.claims AS c SET at_risk_usd = c.price_usd
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.fence = $3 AND c.state = 'live'
RETURNING c.*, (clock_timestamp() AT TIME ZONE 'UTC')::date AS day

-- name: add_call
-- The ledger's row of a call, written before the provider is asked; nothing comes back where the fence has one.
-- `again`: an earlier call at this hop was or may have been billed, and no job id ($11) leads to its result.
INSERT INTO gpu_worker.calls AS c (candidate_id, hop, fence, tenant, request_id, provider, model, key, day, expected_usd,
    again)
SELECT $1::uuid, $2::int, $3::bigint, $4::text, $5::uuid, $6::text, $7::text, $8::text, $9::date, $10::numeric,
    $11::boolean AND EXISTS (
    SELECT FROM gpu_worker.calls e WHERE e.candidate_id = $1 AND e.hop = $2 AND e.fence < $3 AND e.counted_usd > 0)
ON CONFLICT (candidate_id, hop, fence) DO NOTHING
RETURNING c.fence

-- name: open_spending
-- Rows of the day for caps that have none yet, with what the ledger says of the day. Exact while no call of the day is
-- being settled, which is so where caps are there from the day's first call on.
INSERT INTO gpu_worker.spending (day, provider, tenant, reserved_usd, spent_usd)
SELECT $1, k.provider, k.tenant, coalesce(sum(c.expected_usd) FILTER (WHERE c.ended_at IS NULL), 0),
    coalesce(sum(c.counted_usd) FILTER (WHERE c.ended_at IS NOT NULL), 0)
FROM unnest($2::text[], $3::text[]) AS k (provider, tenant)
LEFT JOIN gpu_worker.calls c ON c.day = $1 AND k.provider IN ('', c.provider) AND k.tenant IN ('', c.tenant)
WHERE NOT EXISTS (SELECT FROM gpu_worker.spending s
    WHERE s.day = $1 AND s.provider = k.provider AND s.tenant = k.tenant)
GROUP BY k.provider, k.tenant
ORDER BY k.provider, k.tenant ON CONFLICT DO NOTHING

-- name: lock_spending
-- What these caps have used up today, locked until the call is in the ledger: by key, so that nobody locks crosswise.
SELECT s.provider, s.tenant, s.reserved_usd + s.spent_usd AS used_usd FROM gpu_worker.spending s
JOIN unnest($2::text[], $3::text[]) AS k (provider, tenant) ON s.provider = k.provider AND s.tenant = k.tenant
WHERE s.day = $1
ORDER BY s.provider, s.tenant FOR UPDATE OF s

-- name: reserve_spending
-- Set the price of a call aside under every cap that it fits.
UPDATE gpu_worker.spending s SET reserved_usd = s.reserved_usd + $4
FROM unnest($2::text[], $3::text[]) AS k (provider, tenant)
WHERE s.day = $1 AND s.provider = k.provider AND s.tenant = k.tenant

-- name: settle_spending
-- What was set aside for calls is free again, what they cost is spent; calls of one cap are added up first.
WITH total AS (
    SELECT s.day, s.provider, s.tenant, sum(n.freed_usd) AS freed_usd, sum(n.spent_usd) AS spent_usd
    FROM unnest($1::date[], $2::text[], $3::text[], $4::numeric[], $5::numeric[])
        AS n (day, provider, tenant, freed_usd, spent_usd)
    JOIN gpu_worker.spending s ON s.day = n.day AND s.provider IN ('', n.provider) AND s.tenant IN ('', n.tenant)
    GROUP BY s.day, s.provider, s.tenant
), locked AS (
    SELECT s.day, s.provider, s.tenant FROM gpu_worker.spending s JOIN total USING (day, provider, tenant)
    ORDER BY s.day, s.provider, s.tenant FOR UPDATE OF s
)
UPDATE gpu_worker.spending s
SET reserved_usd = s.reserved_usd - total.freed_usd, spent_usd = s.spent_usd + total.spent_usd
FROM total JOIN locked USING (day, provider, tenant)
WHERE s.day = total.day AND s.provider = total.provider AND s.tenant = total.tenant

-- name: note_job
-- The provider's job of a fence, while it is the fence: from now on the job carries what the fence had at risk.
-- A job that was stored before is of no use any more; what that one cost stays counted. Said twice it changes nothing.
UPDATE gpu_worker.claims AS c
SET prior_usd = c.prior_usd + CASE WHEN was.job = $4 THEN 0 ELSE c.job_usd END, job = $4,
    job_fence = CASE WHEN was.job = $4 THEN c.job_fence ELSE c.fence END,
    job_at = CASE WHEN was.job = $4 THEN c.job_at ELSE clock_timestamp() END,
    job_usd = CASE WHEN was.job = $4 THEN c.job_usd WHEN c.at_risk_usd > 0 THEN c.at_risk_usd ELSE c.price_usd END,
    at_risk_usd = CASE WHEN was.job = $4 THEN c.at_risk_usd ELSE 0 END
FROM (SELECT o.job FROM gpu_worker.claims o
    WHERE o.candidate_id = $1 AND o.hop = $2 AND o.fence = $3 AND o.state = 'live' FOR UPDATE) AS was
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.fence = $3 AND c.state = 'live'
RETURNING c.*, was.job IS NOT DISTINCT FROM $4 AS known

-- name: name_call
-- The job of a call, whatever became of its claim: a bill that names it finds its row.
UPDATE gpu_worker.calls SET jobs = array_append(jobs, $4)
WHERE candidate_id = $1 AND hop = $2 AND fence = $3 AND NOT $4 = ANY (jobs)

-- name: pay_again
-- A call makes a second job because the first could not be found: another price may be billed for it ($4), and what the
-- first one cost ($5) stays counted, here where it was this very call's.
UPDATE gpu_worker.calls SET expected_usd = expected_usd + $4, counted_usd = counted_usd + $5, again = true
WHERE candidate_id = $1 AND hop = $2 AND fence = $3
RETURNING day, provider, tenant

-- name: end_calls
-- What calls came to. A call that had ended already, because nobody had heard of it, ends anew.
WITH n AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::numeric[], $6::numeric[], $7::boolean[],
            $8::text[])
        AS n (candidate_id, hop, fence, outcome, actual_usd, paid_usd, again, job)
), was AS (
    SELECT c.candidate_id, c.hop, c.fence, c.counted_usd, c.ended_at IS NULL AS open, c.expected_usd
    FROM gpu_worker.calls c JOIN n USING (candidate_id, hop, fence)
    ORDER BY c.candidate_id, c.hop, c.fence FOR UPDATE OF c
)
UPDATE gpu_worker.calls AS c
SET outcome = n.outcome, actual_usd = coalesce(n.actual_usd, c.actual_usd), again = coalesce(n.again, c.again),
    counted_usd = n.paid_usd + CASE WHEN was.open THEN was.counted_usd ELSE 0 END,
    jobs = CASE WHEN n.job IS NULL OR n.job = ANY (c.jobs) THEN c.jobs ELSE array_append(c.jobs, n.job) END,
    ended_at = clock_timestamp()
FROM n JOIN was USING (candidate_id, hop, fence)
WHERE c.candidate_id = n.candidate_id AND c.hop = n.hop AND c.fence = n.fence
RETURNING c.candidate_id, c.hop, c.fence, c.provider, c.model, c.tenant, c.day, c.expected_usd, c.actual_usd,
    c.counted_usd, c.again, c.outcome, CASE WHEN was.open THEN c.expected_usd ELSE 0 END AS freed_usd,
    c.counted_usd - CASE WHEN was.open THEN 0 ELSE was.counted_usd END AS spent_usd

-- name: unheard_calls
-- Calls of these claims that nobody will hear of: their fence is gone ($3: the job's too, since the claim has ended).
SELECT c.candidate_id, c.hop, c.fence, c.expected_usd - c.counted_usd AS paid_usd FROM gpu_worker.calls c
JOIN unnest($1::uuid[], $2::int[]) AS k (candidate_id, hop) ON c.candidate_id = k.candidate_id AND c.hop = k.hop
JOIN gpu_worker.claims o ON o.candidate_id = k.candidate_id AND o.hop = k.hop
WHERE c.ended_at IS NULL AND ($3 OR c.fence IS DISTINCT FROM o.job_fence)

-- name: lock_claim
-- The claim of a late call, before its ledger row: everybody locks in this order.
SELECT FROM gpu_worker.claims WHERE candidate_id = $1 AND hop = $2 FOR UPDATE

-- name: late_call
-- A call answered after its claim had moved on. What had been counted for it stays; what it cost beyond is added.
WITH was AS (
    SELECT counted_usd FROM gpu_worker.calls WHERE candidate_id = $1 AND hop = $2 AND fence = $3 FOR UPDATE
)
UPDATE gpu_worker.calls AS c
SET actual_usd = coalesce($4, c.actual_usd),
    outcome = CASE WHEN c.outcome = 'lost' THEN 'late' ELSE c.outcome END,
    jobs = CASE WHEN $5::text IS NULL OR $5 = ANY (c.jobs) THEN c.jobs ELSE array_append(c.jobs, $5) END,
    counted_usd = CASE WHEN c.ended_at IS NULL THEN c.counted_usd ELSE greatest(c.counted_usd, $4) END
FROM was
WHERE c.candidate_id = $1 AND c.hop = $2 AND c.fence = $3
RETURNING c.provider, c.model, c.tenant, c.day, c.expected_usd, c.actual_usd, c.counted_usd, c.again, c.outcome,
    0::numeric AS freed_usd, c.counted_usd - was.counted_usd AS spent_usd

-- name: add_late_cost
-- What a late call cost beyond what the claim had counted for it.
UPDATE gpu_worker.claims SET prior_usd = prior_usd + $3 WHERE candidate_id = $1 AND hop = $2

-- name: list_calls
-- Calls since $1, the newest $7: of a provider ($2), a request ($3), a candidate ($4), in a state ($5); null: of any.
-- `differs`: it led to something, and its cost differs from the expected by more than the bound ($6).
SELECT candidate_id, hop, fence, tenant, request_id, provider, model, key, jobs, day, expected_usd, actual_usd,
    counted_usd, outcome, again, began_at, ended_at
FROM gpu_worker.calls
WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND began_at >= $1
    AND provider = coalesce($2::text, provider) AND request_id = coalesce($3::uuid, request_id)
    AND candidate_id = coalesce($4::uuid, candidate_id)
    AND CASE $5::text WHEN 'open' THEN ended_at IS NULL WHEN 'lost' THEN outcome = 'lost' WHEN 'again' THEN again
        WHEN 'untold' THEN ended_at IS NOT NULL AND actual_usd IS NULL AND counted_usd > 0
        WHEN 'differs' THEN (outcome = 'made' OR actual_usd > 0)
            AND abs(actual_usd - expected_usd) > expected_usd * $6::numeric
        ELSE true END
ORDER BY began_at DESC LIMIT $7

-- name: spent_by_day
-- What was spent and is set aside since $1, by day, provider ($2; null: each) and tenant, for comparing with an invoice.
SELECT day, provider, tenant, count(*) AS calls, count(*) FILTER (WHERE again) AS again,
    count(*) FILTER (WHERE ended_at IS NULL) AS open,
    sum(expected_usd) AS expected_usd, coalesce(sum(actual_usd), 0) AS actual_usd,
    count(*) FILTER (WHERE actual_usd IS NULL AND counted_usd > 0) AS untold, sum(counted_usd) AS counted_usd,
    coalesce(sum(expected_usd) FILTER (WHERE ended_at IS NULL), 0) AS reserved_usd
FROM gpu_worker.calls
WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND began_at >= $1 AND provider = coalesce($2::text, provider)
GROUP BY day, provider, tenant ORDER BY day DESC, provider, tenant

-- name: forget_calls
-- Calls that no invoice will name any more.
DELETE FROM gpu_worker.calls WHERE (candidate_id, hop, fence) IN (
    SELECT candidate_id, hop, fence FROM gpu_worker.calls
    WHERE ended_at < clock_timestamp() - make_interval(days => $1) LIMIT 1000)

-- name: forget_spending
-- Days whose caps nobody asks for any more.
DELETE FROM gpu_worker.spending WHERE day < (clock_timestamp() AT TIME ZONE 'UTC')::date - $1::int
