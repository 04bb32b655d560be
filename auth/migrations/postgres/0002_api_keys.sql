-- API keys: what a service shows instead of its user's session. Times are microseconds since 1970. The binary before this one
-- does not know the table, and takes no key.

CREATE TABLE api_key (
    id           UUID PRIMARY KEY,
    user_id      UUID NOT NULL REFERENCES account (id),
    -- SHA-256 of the key; the key itself is kept nowhere.
    token_hash   BYTEA NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    -- What it is called, and how it begins: to tell keys apart.
    name         TEXT NOT NULL,
    prefix       TEXT NOT NULL,
    -- A JSON array of texts, as model::Scopes writes it.
    scopes       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    -- NULL: lasts until it is revoked.
    expires_at   BIGINT,
    -- Written at intervals, not with each use. NULL: never used.
    last_used_at BIGINT
);
CREATE INDEX api_key_by_user ON api_key (user_id, created_at);
CREATE INDEX api_key_by_expiry ON api_key (expires_at) WHERE expires_at IS NOT NULL;

-- Which key ended: a revocation that is repeated, its answer lost, is known as long as the log reaches back. NULL: a session.
ALTER TABLE revocation ADD COLUMN key_id UUID;
CREATE INDEX revocation_by_key ON revocation (key_id) WHERE key_id IS NOT NULL;
