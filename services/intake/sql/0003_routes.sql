-- What the router decided for each wave of a request: once a wave, since it is the same for all its candidates.
CREATE TABLE intake.routes (
    number bigint NOT NULL REFERENCES intake.requests ON DELETE CASCADE,
    wave integer NOT NULL,
    decision jsonb NOT NULL,          -- the chain with what it is expected to cost, and why every other model lost
    PRIMARY KEY (number, wave)
);
