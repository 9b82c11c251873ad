-- name: find_verdict
-- The verdict on these very bytes of a candidate, if they were judged before.
SELECT scored FROM scorer.verdicts WHERE candidate_id = $1 AND sha256 = $2

-- name: keep_verdict
-- The first stored verdict on these bytes counts; the answer is the one that counts.
WITH made AS (
    INSERT INTO scorer.verdicts (candidate_id, sha256, tenant, request_id, verdict, gate_version, scored)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING scored)
SELECT scored FROM made

-- name: forget_verdicts
-- Verdicts that no record can ask for any more.
DELETE FROM scorer.verdicts WHERE (candidate_id, sha256) IN (
    SELECT candidate_id, sha256 FROM scorer.verdicts
    WHERE scored_at < clock_timestamp() - make_interval(days => $1) LIMIT 1000)
