-- What the list of held records asks.

-- name: held_page
-- A page of what waits under switch $1 (null: any), behind the place ($2, $3), the oldest first.
SELECT held_id, held_at, scope, stage, topic, headers, coalesce(octet_length(value), 0) AS size_bytes
FROM replay.held
WHERE state = 'waiting' AND ($1::text IS NULL OR scope = $1)
    AND ($2::timestamptz IS NULL OR (held_at, held_id) > ($2, $3::uuid))
ORDER BY held_at, held_id LIMIT $4;
