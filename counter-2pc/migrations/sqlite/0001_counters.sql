-- What was published, and what is prepared. Times are microseconds since 1970.

-- A counter that never counted has no row.
CREATE TABLE counter (
    kind    TEXT NOT NULL CHECK (kind IN ('topic', 'user')),
    id      BLOB NOT NULL,
    counter INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;

-- Two-phase commit: the increments that are prepared, and what became of them.
CREATE TABLE ptxn (
    gid         BLOB PRIMARY KEY,
    origin      TEXT NOT NULL CHECK (origin IN ('coordinator', 'client')),
    state       TEXT NOT NULL CHECK (state IN ('PREPARED', 'COMMITTED', 'ABORTED')),
    user_id     BLOB NOT NULL,
    -- NULL: by hand, only the user's counter.
    topic_id    BLOB,
    req_hash    BLOB NOT NULL,
    prepared_at INTEGER NOT NULL
) WITHOUT ROWID;
-- Few at any time: for the alarm, for expiry, and for what a counter will be next.
CREATE INDEX ptxn_prepared ON ptxn (prepared_at) WHERE state = 'PREPARED';
