-- Calls a minute that all workers together may make at a provider, or at one of its models.

-- One row per cap. until[i] is when calls[i] calls of one lease no longer count: a minute after the lease was over,
-- which is the latest that they can have been made. granted and wait_s are what the newest lease was told.
CREATE TABLE gpu_worker.rates (
    name text PRIMARY KEY,
    until timestamptz[] NOT NULL,
    calls integer[] NOT NULL,
    granted integer NOT NULL,
    wait_s double precision NOT NULL
);
