-- name: record_first
-- Store the rulings on requests whose id is new, and return them; ids that are known stay as they are and are missing
-- from the answer. now() is the database's: a record's own time counts only where it is earlier.
-- Rows go in by key, so that two replicas that store the same ids wait for each other instead of locking crosswise.
INSERT INTO policy.verdicts (tenant, request_id, origin, asked, ruling, accepted_at, closes_by)
SELECT tenant, request_id, origin, asked, ruling, least(recorded_at, now()),
       coalesce(deadline, least(recorded_at, now()) + ttl_h * interval '1 hour')
FROM jsonb_to_recordset($1::jsonb) AS new (
    tenant text, request_id uuid, origin text, asked jsonb, ruling jsonb,
    recorded_at timestamptz, deadline timestamptz, ttl_h integer
)
ORDER BY tenant, request_id
ON CONFLICT (tenant, request_id) DO NOTHING
RETURNING tenant, request_id, origin, asked, ruling, accepted_at, closes_by;

-- name: known_verdicts
-- The stored verdicts of some ids, given as two arrays of equal length.
SELECT tenant, request_id, origin, asked, ruling, accepted_at, closes_by
FROM policy.verdicts
JOIN unnest($1::text[], $2::uuid[]) AS wanted (tenant, request_id) USING (tenant, request_id);

-- name: prune
-- Forget at most $2 ids that were decided more than $1 days ago; how many.
WITH old AS (
    SELECT tenant, request_id FROM policy.verdicts
    WHERE decided_at < now() - $1 * interval '1 day'
    ORDER BY decided_at LIMIT $2
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM policy.verdicts USING old
    WHERE verdicts.tenant = old.tenant AND verdicts.request_id = old.request_id
    RETURNING 1
)
SELECT count(*) FROM gone;
