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
-- What was measured in the last hours, the newest first.
SELECT scored FROM scorer.verdicts
WHERE scored_at > clock_timestamp() - make_interval(secs => $1 * 3600) ORDER BY scored_at DESC LIMIT $2

-- name: measured
-- What was measured of these candidates; of several files of one the newest.
SELECT DISTINCT ON (candidate_id) candidate_id, scored FROM scorer.verdicts
WHERE candidate_id = ANY ($1::uuid[]) ORDER BY candidate_id, scored_at DESC
