-- What was approved looks like this: near-duplicates share at least one part (likeness.py).
CREATE TABLE publisher.fingerprints (
    asset_id uuid PRIMARY KEY,
    tenant text NOT NULL,
    phash text NOT NULL,
    parts bigint[] NOT NULL
);
CREATE INDEX ON publisher.fingerprints USING gin (parts);
