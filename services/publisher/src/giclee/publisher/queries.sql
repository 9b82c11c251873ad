-- name: lock_orders
-- Lock the orders of these requests, in the order of their ids so that two batches never wait for each other.
SELECT o.id, o.tenant, o.request_id, o.wake_at, o.closed_at IS NOT NULL AS closed
FROM publisher.orders o
JOIN unnest($1::text[], $2::uuid[]) AS asked (tenant, request_id)
    ON o.tenant = asked.tenant AND o.request_id = asked.request_id
ORDER BY o.id
FOR NO KEY UPDATE OF o

-- name: open_orders
-- Open the orders of requests that nothing was heard of; sorted, for the same reason.
INSERT INTO publisher.orders (tenant, request_id)
SELECT tenant, request_id FROM unnest($1::text[], $2::uuid[]) AS asked (tenant, request_id)
ORDER BY tenant, request_id
ON CONFLICT DO NOTHING

-- name: store_facts
-- Store facts, oldest first; the first of a name wins (rule 1).
INSERT INTO publisher.facts (order_id, kind, name, says, evidence)
SELECT order_id, kind, name, says::jsonb, evidence::jsonb
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
    AS told (order_id, kind, name, says, evidence, place)
ORDER BY place
ON CONFLICT DO NOTHING

-- name: read_facts
-- Everything that decisions read about these orders, oldest first, and the time it is.
SELECT order_id, kind, name, says, at
FROM publisher.facts
WHERE order_id = ANY ($1::bigint[])
ORDER BY number

-- name: read_evidence
-- What publications of orders are made of: all of it for the first list, the verdict for the second.
SELECT order_id, kind, name, says, evidence::text AS evidence
FROM publisher.facts
WHERE evidence IS NOT NULL AND (order_id = ANY ($1::bigint[]) OR order_id = ANY ($2::bigint[]) AND kind = 'verdict')
ORDER BY number

-- name: add_assets
-- Add newly approved assets; an asset is created once, so a second one of an id is an error.
INSERT INTO publisher.assets
    (asset_id, tenant, request_id, candidate_id, version, status, labels, document, updated_at)
SELECT asset_id, tenant, request_id, candidate_id, version, 'approved', document::jsonb -> 'labels', document::jsonb, $7
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::integer[], $6::text[])
    AS added (asset_id, tenant, request_id, candidate_id, version, document)

-- name: close_orders
-- Close orders by compare-and-set; the first to close wins (rule 1).
UPDATE publisher.orders o
SET closed_at = $3, outcome = ended.outcome, wake_at = NULL
FROM unnest($1::bigint[], $2::text[]) AS ended (id, outcome)
WHERE o.id = ended.id AND o.closed_at IS NULL

-- name: set_alarms
-- When the sweeper must look at orders again.
UPDATE publisher.orders o
SET wake_at = alarms.wake_at
FROM unnest($1::bigint[], $2::timestamptz[]) AS alarms (id, wake_at)
WHERE o.id = alarms.id AND o.closed_at IS NULL

-- name: claim_due
-- Take orders whose time has come, and put their alarm off so that one that cannot be decided blocks no other.
UPDATE publisher.orders o
SET wake_at = clock_timestamp() + make_interval(secs => $2)
FROM (
    SELECT id FROM publisher.orders
    WHERE closed_at IS NULL AND wake_at <= now()
    ORDER BY wake_at
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
) AS due
WHERE o.id = due.id
RETURNING o.tenant, o.request_id

-- name: forget_unclaimed
-- Forget orders of which nothing but a cancel was heard for longer than a cancel is kept (rule 15).
DELETE FROM publisher.orders
WHERE id IN (
    SELECT o.id FROM publisher.orders o
    WHERE o.closed_at IS NULL AND o.wake_at IS NULL AND o.opened_at < now() - make_interval(days => $1)
        AND NOT EXISTS (SELECT 1 FROM publisher.facts f WHERE f.order_id = o.id AND f.kind <> 'cancel')
    ORDER BY o.opened_at
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
)

-- name: page_of_assets
-- One page of a tenant's assets by time of change, then id; every filter may be null.
SELECT asset_id, document, updated_at
FROM publisher.assets
WHERE tenant = $1
    AND ($2::text IS NULL OR status = $2)
    AND ($3::timestamptz IS NULL OR updated_at > $3)
    AND ($4::text IS NULL OR labels @> $4::jsonb)
    AND ($5::timestamptz IS NULL OR (updated_at, asset_id) > ($5, $6::uuid))
    AND ($8::uuid IS NULL OR request_id = $8)
ORDER BY updated_at, asset_id
LIMIT $7

-- name: one_asset
-- One asset of a tenant.
SELECT asset_id, document, updated_at FROM publisher.assets WHERE tenant = $1 AND asset_id = $2

-- name: standing
-- How the orders of these requests stand.
SELECT o.tenant, o.request_id, CASE WHEN o.closed_at IS NULL THEN 'open' ELSE 'closed' END AS state, o.outcome
FROM publisher.orders o
JOIN unnest($1::text[], $2::uuid[]) AS asked (tenant, request_id)
    ON o.tenant = asked.tenant AND o.request_id = asked.request_id

-- name: add_rates
-- Add counts of candidates; of each kind the last few hundred weigh most. Sorted, so that replicas never wait crosswise.
INSERT INTO publisher.pass_rates AS known (asset_type, quality, model, passes, fails)
SELECT asset_type, quality, model, passes, fails
FROM unnest($1::text[], $2::text[], $3::text[], $4::double precision[], $5::double precision[])
    AS counted (asset_type, quality, model, passes, fails)
ORDER BY asset_type, quality, model
ON CONFLICT (asset_type, quality, model) DO UPDATE
SET passes = known.passes * least(1, $6 / greatest(1, known.passes + known.fails)) + excluded.passes,
    fails = known.fails * least(1, $6 / greatest(1, known.passes + known.fails)) + excluded.fails

-- name: read_rates
-- How candidates of every kind fared.
SELECT asset_type, quality, model, passes, fails FROM publisher.pass_rates

-- name: lock_tenants
-- Approvals of a tenant are compared with those before them, one transaction after the other; sorted by the caller.
SELECT pg_advisory_xact_lock(hashtextextended('publisher.fingerprints/' || tenant, 0))
FROM unnest($1::text[]) AS asked (tenant)

-- name: near_fingerprints
-- Earlier approvals that share a part with one of these pictures; how near they are is looked at by the caller.
SELECT f.tenant, f.asset_id, f.phash
FROM publisher.fingerprints f
JOIN publisher.assets a USING (asset_id)
WHERE f.parts && $1::bigint[] AND a.status = 'approved'

-- name: add_fingerprints
-- What was just approved looks like this; the parts of all rows lie behind each other, PARTS to a row.
INSERT INTO publisher.fingerprints (asset_id, tenant, phash, parts)
SELECT asset_id, tenant, phash, ($4::bigint[])[(place - 1) * $5 + 1 : place * $5]
FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS added (asset_id, tenant, phash, place)
ON CONFLICT DO NOTHING
