-- name: record_first
-- Store the choices for waves that are new, and return them; waves that are known stay as they are and are missing
-- from the answer. By key, so that two replicas that store the same waves wait for each other instead of locking
-- crosswise.
INSERT INTO router.waves (tenant, request_id, wave, first_index, count, limit_usd, choice, tables, closes_by)
SELECT tenant, request_id, wave, first_index, count, limit_usd, choice, tables, closes_by
FROM jsonb_to_recordset($1::jsonb) AS new (
    tenant text, request_id uuid, wave integer, first_index integer, count integer, limit_usd numeric,
    choice jsonb, tables text, closes_by timestamptz
)
ORDER BY tenant, request_id, wave
ON CONFLICT (tenant, request_id, wave) DO NOTHING
RETURNING tenant, request_id, wave, first_index, count, limit_usd, choice;

-- name: known_waves
-- The stored choices of some waves, given as three arrays of equal length.
SELECT tenant, request_id, wave, first_index, count, limit_usd, choice
FROM router.waves
JOIN unnest($1::text[], $2::uuid[], $3::integer[]) AS wanted (tenant, request_id, wave)
USING (tenant, request_id, wave);

-- name: prune
-- Forget at most $2 waves of requests that had to close more than $1 days ago; how many.
WITH old AS (
    SELECT tenant, request_id, wave FROM router.waves
    WHERE closes_by < now() - $1 * interval '1 day'
    ORDER BY closes_by LIMIT $2
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM router.waves USING old
    WHERE waves.tenant = old.tenant AND waves.request_id = old.request_id AND waves.wave = old.wave
    RETURNING 1
)
SELECT count(*) FROM gone;
