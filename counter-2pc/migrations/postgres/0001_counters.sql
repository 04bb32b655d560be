-- What was published, and what is prepared. Times are microseconds since 1970.

-- A counter that never counted has no row. Updated in place: half-empty pages leave room for it.
CREATE TABLE counter (
    kind    TEXT NOT NULL CHECK (kind IN ('topic', 'user')),
    id      UUID NOT NULL,
    counter BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 50);

-- Two-phase commit: the increments that are prepared, and what became of them.
CREATE TABLE ptxn (
    gid         UUID PRIMARY KEY,
    origin      TEXT NOT NULL CHECK (origin IN ('coordinator', 'client')),
    state       TEXT NOT NULL CHECK (state IN ('PREPARED', 'COMMITTED', 'ABORTED')),
    user_id     UUID NOT NULL,
    -- NULL: by hand, only the user's counter.
    topic_id    UUID,
    req_hash    BYTEA NOT NULL,
    prepared_at BIGINT NOT NULL
) WITH (fillfactor = 70);
-- Few at any time: for the alarm, for expiry, and for what a counter will be next.
CREATE INDEX ptxn_prepared ON ptxn (prepared_at) WHERE state = 'PREPARED';
