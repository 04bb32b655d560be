-- Accounts, their sessions and the numbered log of sessions that were ended. Times are microseconds since 1970.

CREATE TABLE account (
    id            UUID PRIMARY KEY,
    -- In lower case, as model::Email makes it; compared by bytes.
    email         TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);

CREATE TABLE session (
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash BYTEA PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    UUID NOT NULL REFERENCES account (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX session_by_user ON session (user_id, created_at);
CREATE INDEX session_by_expiry ON session (expires_at);

CREATE TABLE revocation (
    seq        BIGINT PRIMARY KEY,
    user_id    UUID NOT NULL,
    -- NULL where all sessions of the user ended.
    token_hash BYTEA CHECK (octet_length(token_hash) = 32),
    revoked_at BIGINT NOT NULL
);
CREATE INDEX revocation_by_time ON revocation (revoked_at);

-- The newest number. A transaction that revokes locks this row until it commits: numbers follow the order of commits and
-- have no gaps. A sequence would promise neither.
CREATE TABLE revocation_head (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    seq BIGINT NOT NULL
);
INSERT INTO revocation_head (seq) VALUES (0);
