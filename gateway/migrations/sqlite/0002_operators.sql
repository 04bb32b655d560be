-- How the participants voted, and what operators found. SQLite cannot change a CHECK, so the table is made anew. An older binary
-- goes on with it: it neither reads nor writes what is new, and all of that may be absent.

CREATE TABLE txn_new (
    gid               BLOB PRIMARY KEY,
    user_id           BLOB NOT NULL,
    idem_key          TEXT,
    req_hash          BLOB NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('PREPARING', 'COMMIT', 'ABORT')),
    vote_persist      TEXT CHECK (vote_persist IN ('yes', 'no', 'error')),
    vote_counter      TEXT CHECK (vote_counter IN ('yes', 'no', 'error')),
    reason            TEXT,
    acked_persist     BOOLEAN NOT NULL DEFAULT FALSE,
    acked_counter     BOOLEAN NOT NULL DEFAULT FALSE,
    tries             INTEGER NOT NULL DEFAULT 0,
    refusals          INTEGER NOT NULL DEFAULT 0,
    quarantined       BOOLEAN NOT NULL DEFAULT FALSE,
    owner             BLOB NOT NULL,
    -- Until then others leave it to its owner.
    lease_until       INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    deadline          INTEGER NOT NULL,
    closed_at         INTEGER,
    resolved_at       INTEGER,
    resolved_by       TEXT,
    resolution        TEXT,
    resolution_reason TEXT,
    CHECK (
        (resolved_at IS NULL AND resolved_by IS NULL AND resolution IS NULL AND resolution_reason IS NULL)
        OR (resolved_at IS NOT NULL AND resolved_by IS NOT NULL AND resolution_reason IS NOT NULL
            AND resolution IN ('committed', 'rolled_back', 'mixed'))
    ),
    -- Closed means that both have applied the decision, or that an operator has looked.
    CHECK (closed_at IS NULL OR (state <> 'PREPARING' AND (acked_persist AND acked_counter OR resolved_at IS NOT NULL)))
) WITHOUT ROWID;

INSERT INTO txn_new (gid, user_id, idem_key, req_hash, state, reason, acked_persist, acked_counter, tries, refusals, quarantined,
                     owner, lease_until, created_at, deadline, closed_at)
SELECT gid, user_id, idem_key, req_hash, state, reason, acked_persist, acked_counter, tries, refusals, quarantined,
       owner, lease_until, created_at, deadline, closed_at
FROM txn;

DROP TABLE txn;
ALTER TABLE txn_new RENAME TO txn;

-- An abort frees the key, so a key has at most one committed transaction.
CREATE UNIQUE INDEX txn_key ON txn (user_id, idem_key) WHERE idem_key IS NOT NULL AND state <> 'ABORT';
-- Few at any time: what recovery looks through.
CREATE INDEX txn_open ON txn (lease_until) WHERE closed_at IS NULL;
-- Rare, and asked for by hand.
CREATE INDEX txn_resolved ON txn (resolved_at) WHERE resolved_at IS NOT NULL;
