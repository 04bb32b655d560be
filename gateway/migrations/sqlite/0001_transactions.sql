-- The coordinator's transactions. Times are microseconds since 1970.

CREATE TABLE txn (
    gid           BLOB PRIMARY KEY,
    user_id       BLOB NOT NULL,
    idem_key      TEXT,
    req_hash      BLOB NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('PREPARING', 'COMMIT', 'ABORT')),
    reason        TEXT,
    acked_persist BOOLEAN NOT NULL DEFAULT FALSE,
    acked_counter BOOLEAN NOT NULL DEFAULT FALSE,
    tries         INTEGER NOT NULL DEFAULT 0,
    refusals      INTEGER NOT NULL DEFAULT 0,
    quarantined   BOOLEAN NOT NULL DEFAULT FALSE,
    owner         BLOB NOT NULL,
    -- Until then others leave it to its owner.
    lease_until   INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    deadline      INTEGER NOT NULL,
    closed_at     INTEGER,
    -- Closed means that both have applied the decision.
    CHECK (closed_at IS NULL OR (state <> 'PREPARING' AND acked_persist AND acked_counter))
) WITHOUT ROWID;

-- An abort frees the key, so a key has at most one committed transaction.
CREATE UNIQUE INDEX txn_key ON txn (user_id, idem_key) WHERE idem_key IS NOT NULL AND state <> 'ABORT';
-- Few at any time: what recovery looks through.
CREATE INDEX txn_open ON txn (lease_until) WHERE closed_at IS NULL;
