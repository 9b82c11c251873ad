-- name: lease_calls
-- A lease of at most $3 calls under the cap $1 of $2 calls a minute, good for $4 seconds: what is granted (0 to $3) and,
-- where nothing is, the seconds until the oldest lease counts no longer. One statement, so that of racing workers each
-- sees what the one before it took: on a conflict it computes from the row as it is once it is locked.
INSERT INTO gpu_worker.rates AS r (name, until, calls, granted, wait_s)
VALUES ($1, ARRAY[clock_timestamp() + make_interval(secs => $4 + 60)], ARRAY[least($2::int, $3::int)],
    least($2::int, $3::int), 0)
ON CONFLICT (name) DO UPDATE SET (until, calls, granted, wait_s) = (
    SELECT CASE WHEN free.calls > 0 THEN kept.until || (t.now + make_interval(secs => $4 + 60)) ELSE kept.until END,
        CASE WHEN free.calls > 0 THEN kept.calls || free.calls ELSE kept.calls END,
        free.calls,
        CASE WHEN free.calls > 0 THEN 0 ELSE coalesce(extract(epoch FROM kept.first - t.now), 0) END
    FROM (SELECT clock_timestamp() AS now) t,
        LATERAL (SELECT coalesce(array_agg(u ORDER BY u), '{}') AS until,
            coalesce(array_agg(c ORDER BY u), '{}') AS calls, coalesce(sum(c), 0) AS taken, min(u) AS first
            FROM unnest(r.until, r.calls) AS lease (u, c) WHERE u > t.now) kept,
        LATERAL (SELECT greatest(0, least($3::int, $2::int - kept.taken))::int AS calls) free)
RETURNING granted, wait_s
