-- Accounts, their sessions and the numbered log of sessions that were ended. Times are microseconds since 1970.

CREATE TABLE account (
    id            BLOB PRIMARY KEY NOT NULL,
    -- In lower case, as model::Email makes it; compared by bytes.
    email         TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE session (
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash BLOB PRIMARY KEY NOT NULL CHECK (length(token_hash) = 32),
    user_id    BLOB NOT NULL REFERENCES account (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX session_by_user ON session (user_id, created_at);
CREATE INDEX session_by_expiry ON session (expires_at);

CREATE TABLE revocation (
    seq        INTEGER PRIMARY KEY NOT NULL,
    user_id    BLOB NOT NULL,
    -- NULL where all sessions of the user ended.
    token_hash BLOB CHECK (length(token_hash) = 32),
    revoked_at INTEGER NOT NULL
) STRICT;
CREATE INDEX revocation_by_time ON revocation (revoked_at);

-- The newest number: numbers follow the order of commits and have no gaps, also after old rows were trimmed.
CREATE TABLE revocation_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_head (one, seq) VALUES (1, 0);
