-- The coordinator's transactions. All gateways share this database. Times are microseconds since 1970 by its own clock, which
-- alone judges deadlines and leases.

CREATE FUNCTION clock_micros() RETURNS BIGINT LANGUAGE SQL VOLATILE
    RETURN (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT;

-- Each row is written three times: half-empty pages keep that in place.
CREATE TABLE txn (
    gid           UUID PRIMARY KEY,
    user_id       UUID NOT NULL,
    idem_key      TEXT COLLATE "C",
    req_hash      BYTEA NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('PREPARING', 'COMMIT', 'ABORT')),
    reason        TEXT,
    acked_persist BOOLEAN NOT NULL DEFAULT FALSE,
    acked_counter BOOLEAN NOT NULL DEFAULT FALSE,
    tries         BIGINT NOT NULL DEFAULT 0,
    refusals      BIGINT NOT NULL DEFAULT 0,
    quarantined   BOOLEAN NOT NULL DEFAULT FALSE,
    owner         UUID NOT NULL,
    -- Until then others leave it to its owner.
    lease_until   BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    deadline      BIGINT NOT NULL,
    closed_at     BIGINT,
    -- Closed means that both have applied the decision.
    CHECK (closed_at IS NULL OR (state <> 'PREPARING' AND acked_persist AND acked_counter))
) WITH (fillfactor = 50);

-- An abort frees the key, so a key has at most one committed transaction.
CREATE UNIQUE INDEX txn_key ON txn (user_id, idem_key) WHERE idem_key IS NOT NULL AND state <> 'ABORT';
-- Few at any time: what recovery looks through.
CREATE INDEX txn_open ON txn (lease_until) WHERE closed_at IS NULL;
