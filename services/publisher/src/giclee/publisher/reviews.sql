-- name: add_reviews
-- Put images to people; a candidate comes once.
INSERT INTO publisher.reviews (candidate_id, order_id, tenant, asset_type, kind, sha256, eyes, place, document, due_at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[],
    $8::double precision[], $9::jsonb[], $10::timestamptz[])

-- name: withdraw_reviews
-- These orders have ended: nobody need look any more, and what was said and had no effect yet gets none.
UPDATE publisher.reviews
SET state = 'withdrawn', ended_at = clock_timestamp(), leased_by = NULL, leased_until = NULL
WHERE order_id = ANY ($1::bigint[]) AND state IN ('pending', 'given') AND kind <> 'sample'

-- name: take_effect
-- Verdicts of these orders that can no longer be undone.
UPDATE publisher.reviews
SET state = 'done', ended_at = clock_timestamp(), leased_by = NULL, leased_until = NULL
WHERE order_id = ANY ($1::bigint[]) AND state = 'given' AND effective_at <= clock_timestamp()
RETURNING order_id, kind, document, verdict, reviewer, seconded_by, reason_codes, note, seconds, given_at

-- name: claim_effective
-- Orders with verdicts that have an effect now; put off, so that one that cannot be decided blocks no other.
UPDATE publisher.reviews r
SET look_at = clock_timestamp() + make_interval(secs => $2)
FROM (
    SELECT candidate_id FROM publisher.reviews
    WHERE state = 'given' AND look_at <= now()
    ORDER BY look_at
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
) AS due, publisher.orders o
WHERE r.candidate_id = due.candidate_id AND o.id = r.order_id
RETURNING o.tenant, o.request_id

-- name: lease_reviews
-- The next images for a reviewer: nobody else has them, and they are not the first of two who passed it.
UPDATE publisher.reviews r
SET leased_by = $2, leased_until = clock_timestamp() + make_interval(secs => $3)
FROM (
    SELECT candidate_id FROM publisher.reviews
    WHERE tenant = $1 AND state = 'pending' AND ($5::text IS NULL OR asset_type = $5)
        AND ($6::text IS NULL OR kind = $6)
        AND (leased_until IS NULL OR leased_until <= clock_timestamp()) AND seconded_by IS DISTINCT FROM $2
    ORDER BY due_at, place, candidate_id
    LIMIT $4
    FOR NO KEY UPDATE SKIP LOCKED
) AS next
WHERE r.candidate_id = next.candidate_id
RETURNING r.candidate_id

-- name: renew_leases
-- More time for images that this reviewer had last; those that another has meanwhile are left out.
UPDATE publisher.reviews r
SET leased_until = clock_timestamp() + make_interval(secs => $3)
FROM (
    SELECT candidate_id FROM publisher.reviews
    WHERE tenant = $1 AND state = 'pending' AND leased_by = $2 AND candidate_id = ANY ($4::uuid[])
    FOR NO KEY UPDATE SKIP LOCKED
) AS mine
WHERE r.candidate_id = mine.candidate_id
RETURNING r.candidate_id

-- name: lock_review
-- One review, locked until its verdict is written or undone.
SELECT * FROM publisher.reviews WHERE tenant = $1 AND candidate_id = $2 FOR NO KEY UPDATE

-- name: write_review
-- What somebody said, or has taken back.
UPDATE publisher.reviews
SET state = $2, verdict = $3, reviewer = $4, seconded_by = $5, reason_codes = $6, note = $7, seconds = $8,
    given_at = $9, effective_at = $10, look_at = $10, leased_by = $11, leased_until = $12
WHERE candidate_id = $1

-- name: page_of_reviews
-- One page of a tenant's reviews with what was measured, the soonest due first; every filter may be null.
SELECT r.*, o.request_id, clock_timestamp() AS now,
    (SELECT f.evidence FROM publisher.facts f WHERE f.order_id = r.order_id AND f.kind = 'score'
        AND f.name = (r.document ->> 'index') || '/' || r.sha256) AS scored,
    (SELECT f.evidence -> 'request' FROM publisher.facts f WHERE f.order_id = r.order_id AND f.kind = 'verdict'
    ) AS cleared
FROM publisher.reviews r JOIN publisher.orders o ON o.id = r.order_id
WHERE r.tenant = $1
    AND ($2::text IS NULL OR r.state = $2)
    AND ($3::text IS NULL OR r.asset_type = $3)
    AND ($4::text IS NULL OR r.kind = $4)
    AND ($5::timestamptz IS NULL OR (r.due_at, r.place, r.candidate_id) > ($5, $6::double precision, $7::uuid))
    AND ($8::uuid[] IS NULL OR r.candidate_id = ANY ($8))
ORDER BY r.due_at, r.place, r.candidate_id
LIMIT $9

-- name: queue
-- How many wait, by kind, and for how long the oldest has.
SELECT kind, count(*) AS waiting, extract(epoch FROM clock_timestamp() - min(asked_at)) AS oldest_s
FROM publisher.reviews WHERE state = 'pending' GROUP BY kind

-- name: lock_asset
-- The newest public fact about an asset, locked until there is a newer one.
SELECT version, status, document FROM publisher.assets WHERE tenant = $1 AND asset_id = $2 FOR NO KEY UPDATE

-- name: revoke_asset
-- The asset's next version is its revocation; its evidence stays.
UPDATE publisher.assets SET version = $2, status = 'revoked', document = $3::jsonb, updated_at = $4 WHERE asset_id = $1
