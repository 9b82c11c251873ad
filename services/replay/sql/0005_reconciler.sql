-- What the reconciler reads of other services, read-only and in one place (docs/adr/0008), and what it remembers.
-- A service that changes one of these tables changes its view in a migration of this folder.

CREATE VIEW replay.seen_requests AS
SELECT tenant, request_id, accepted_at, closes_by, outcome IS NOT NULL AS ended, expiry_sent_at, stalled, held
FROM intake.requests WHERE request IS NOT NULL;

CREATE VIEW replay.seen_orders AS
SELECT tenant, request_id, opened_at, closed_at, wake_at IS NOT NULL AS has_verdict FROM publisher.orders;

CREATE VIEW replay.seen_facts AS
SELECT o.tenant, o.request_id, f.says::text AS says, f.evidence::text AS evidence
FROM publisher.orders o JOIN publisher.facts f ON f.order_id = o.id;

CREATE VIEW replay.seen_assets AS
SELECT asset_id, tenant, request_id, status, document FROM publisher.assets;

CREATE VIEW replay.seen_claims AS
SELECT candidate_id, state FROM gpu_worker.claims;

CREATE VIEW replay.seen_outboxes AS
SELECT 'intake' AS service, lane, created_at FROM intake.outbox
UNION ALL SELECT 'publisher', lane, created_at FROM publisher.outbox
UNION ALL SELECT 'gpu-worker', lane, created_at FROM gpu_worker.outbox;

-- Where each group stood when it was last seen: the place to begin again when its offset is lost.
CREATE TABLE replay.group_positions (
    group_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_name, topic, partition)
);
