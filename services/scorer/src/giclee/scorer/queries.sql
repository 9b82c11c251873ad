-- name: find_verdicts
-- The verdicts on these very bytes of candidates that were judged before.
SELECT candidate_id, sha256, scored
FROM scorer.verdicts JOIN unnest($1::uuid[], $2::text[]) AS asked (candidate_id, sha256) USING (candidate_id, sha256)

-- name: keep_verdicts
-- The first stored verdict on these bytes counts; the answer names the verdicts that were the first. By key, so that
-- two replicas that store the same ones wait for each other instead of locking crosswise.
INSERT INTO scorer.verdicts (candidate_id, sha256, tenant, request_id, verdict, gate_version, scored)
SELECT candidate_id, sha256, tenant, request_id, verdict, gate_version, scored
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::jsonb[])
    AS made (candidate_id, sha256, tenant, request_id, verdict, gate_version, scored)
ORDER BY candidate_id, sha256
ON CONFLICT DO NOTHING
RETURNING candidate_id, sha256

-- name: forget_verdicts
-- Verdicts that no record can ask for any more.
DELETE FROM scorer.verdicts WHERE (candidate_id, sha256) IN (
    SELECT candidate_id, sha256 FROM scorer.verdicts
    WHERE scored_at < clock_timestamp() - make_interval(days => $1) LIMIT 1000)

-- name: verdicts_since
-- What was measured in the last hours, of one asset type or all, the newest first.
SELECT scored FROM scorer.verdicts
WHERE scored_at > clock_timestamp() - make_interval(secs => $1 * 3600)
    AND ($3::text IS NULL OR scored ->> 'asset_type' = $3)
ORDER BY scored_at DESC LIMIT $2

-- name: measured
-- What was measured of these candidates; of several files of one the newest.
SELECT DISTINCT ON (candidate_id) candidate_id, scored FROM scorer.verdicts
WHERE candidate_id = ANY ($1::uuid[]) ORDER BY candidate_id, scored_at DESC

-- name: first_of_requests
-- Of these candidates, all of one model, those whose verdict is the first on an image of that model for its request.
SELECT mine.candidate_id FROM scorer.verdicts AS mine WHERE mine.candidate_id = ANY ($1::uuid[]) AND NOT EXISTS (
    SELECT FROM scorer.verdicts AS earlier
    WHERE earlier.request_id = mine.request_id
        AND (earlier.scored_at, earlier.candidate_id, earlier.sha256) < (mine.scored_at, mine.candidate_id, mine.sha256)
        AND earlier.scored -> 'model' ->> 'name' = $2 AND earlier.scored -> 'model' ->> 'revision' = $3)

-- name: lock_spread
-- What was counted, made when it is not there, and locked: two replicas count one after the other.
INSERT INTO scorer.spreads AS known (asset_type, model, reference) VALUES ($1, $2, $3)
ON CONFLICT (asset_type, model, reference) DO UPDATE SET changed_at = clock_timestamp()
RETURNING seen, block, size, counts

-- name: keep_spread
-- What is counted now; whoever writes it holds its lock.
UPDATE scorer.spreads SET seen = $4, block = $5, size = $6, counts = $7::jsonb
WHERE asset_type = $1 AND model = $2 AND reference = $3

-- name: raise_drift
-- Hold back an asset type of a model; what is held back already stays as it is. As unseen a revision is held once.
INSERT INTO scorer.drift (asset_type, model, reference, dimension, says) SELECT $1, $2, $3, $4, $5
WHERE $4 <> '*' OR NOT EXISTS (
    SELECT FROM scorer.drift WHERE asset_type = $1 AND model = $2 AND reference = $3 AND dimension = '*')
ON CONFLICT (asset_type, model, dimension, reference) WHERE cleared_at IS NULL DO NOTHING
RETURNING id

-- name: release_unseen
-- A revision that was not calibrated with has shown enough images like those that were, and nothing drifted.
UPDATE scorer.drift SET cleared_at = clock_timestamp(), cleared_by = 'giclee', cleared_because = $4
WHERE asset_type = $1 AND model = $2 AND reference = $3 AND dimension = '*' AND cleared_at IS NULL
    AND NOT EXISTS (SELECT FROM scorer.drift AS other WHERE other.asset_type = $1 AND other.model = $2
                    AND other.reference = $3 AND other.dimension <> '*' AND other.cleared_at IS NULL)

-- name: standing
-- What is held back of these, and the revisions that were released.
SELECT asset_type, model, reference, dimension, says, cleared_at IS NULL AS held
FROM scorer.drift JOIN unnest($1::text[], $2::text[], $3::text[]) AS asked (asset_type, model, reference)
    USING (asset_type, model, reference)
WHERE cleared_at IS NULL OR dimension = '*'

-- name: list_drift
-- What is held back, the newest first; with $1 what was cleared as well.
SELECT drift.id, asset_type, model, dimension, says, reference, raised_at, cleared_at, cleared_by, cleared_because,
    coalesce(seen, 0) AS seen
FROM scorer.drift LEFT JOIN scorer.spreads USING (asset_type, model, reference)
WHERE $1::bool OR cleared_at IS NULL ORDER BY drift.id DESC LIMIT $2

-- name: clear_drift
-- An operator takes responsibility; counting begins anew, in the next block, whose part of the error is not spent yet.
WITH cleared AS (
    UPDATE scorer.drift SET cleared_at = clock_timestamp(), cleared_by = $4, cleared_because = $5
    WHERE asset_type = $1 AND model = $2 AND ($3::text IS NULL OR dimension = $3) AND cleared_at IS NULL
    RETURNING id, asset_type, model, dimension, reference, says
), renewed AS (
    UPDATE scorer.spreads SET block = block + 1, size = 0, counts = '{}'
    WHERE (asset_type, model, reference) IN (SELECT asset_type, model, reference FROM cleared WHERE dimension <> '*')
)
SELECT asset_type, model, dimension, says FROM cleared ORDER BY id
