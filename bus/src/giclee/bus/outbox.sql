-- name: put
-- Writes rows in the order of the arrays $1 to $5 and tells the relays that listen on $6 which lanes have some.
WITH written AS (
    INSERT INTO {schema}.outbox (lane, topic, key, value, headers)
    SELECT lane, topic, key, value, headers
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::jsonb[])
        WITH ORDINALITY AS row(lane, topic, key, value, headers, place)
    ORDER BY place
    RETURNING lane)
SELECT pg_notify($6, lane) FROM (SELECT DISTINCT lane FROM written) AS lanes;

-- name: take_plain
-- Locks the oldest rows of lanes $1 that no other relay holds, at most $2 rows and about $3 bytes, without ids $4.
WITH free AS MATERIALIZED (
        SELECT id, octet_length(value) AS size FROM {schema}.outbox
        WHERE lane = ANY($1::text[]) AND id <> ALL($4::bigint[])
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
    fitting AS (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM free)
SELECT o.id, o.topic, o.key, o.value, o.headers
FROM {schema}.outbox o JOIN fitting USING (id) WHERE before < $3 OR before IS NULL ORDER BY o.id;

-- name: drop
-- Removes the rows $1, which were sent.
DELETE FROM {schema}.outbox WHERE id = ANY($1::bigint[]);

-- name: number
-- Numbers on from $2 the $1 oldest rows without a number, and what else their requests have within $3 ids.
WITH head AS (
        SELECT id, headers->>'ce_subject' AS subject FROM {schema}.outbox
        WHERE lane = 'transactional' AND number IS NULL ORDER BY id LIMIT $1),
    edge AS (SELECT max(id) AS id FROM head),
    whole AS (
        SELECT o.id FROM {schema}.outbox o, edge
        WHERE o.lane = 'transactional' AND o.number IS NULL AND o.id <= edge.id + $3
            AND (o.id <= edge.id OR o.headers->>'ce_subject' IN (SELECT subject FROM head))),
    numbered AS (SELECT id, $2 - 1 + row_number() OVER (ORDER BY id) AS number FROM whole)
UPDATE {schema}.outbox o SET number = numbered.number FROM numbered WHERE o.id = numbered.id
RETURNING o.id, o.number, o.topic, o.key, o.value, o.headers;

-- name: numbered
-- Rows that have a number: what a relay left that died between numbering and dropping.
SELECT id, number, topic, key, value, headers FROM {schema}.outbox
WHERE lane = 'transactional' AND number IS NOT NULL ORDER BY number;

-- name: drop_sent
-- Removes rows whose number is on the log already, up to $1.
DELETE FROM {schema}.outbox WHERE lane = 'transactional' AND number <= $1;

-- name: waiting
-- How many rows a lane has and how old the oldest is, in seconds.
SELECT count(*) AS rows, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) AS oldest_s
FROM {schema}.outbox WHERE lane = $1;
