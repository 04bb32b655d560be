-- How the participants voted, and what operators found. An older binary goes on with this table: it neither reads nor writes
-- what is new, and all of that may be absent.

ALTER TABLE txn
    ADD COLUMN vote_persist      TEXT,
    ADD COLUMN vote_counter      TEXT,
    ADD COLUMN resolved_at       BIGINT,
    ADD COLUMN resolved_by       TEXT,
    ADD COLUMN resolution        TEXT,
    ADD COLUMN resolution_reason TEXT,
    DROP CONSTRAINT txn_check,
    -- NOT VALID: what is there already satisfied more than this, so a large table need not be read while everybody waits.
    ADD CONSTRAINT txn_vote CHECK (vote_persist IN ('yes', 'no', 'error') AND vote_counter IN ('yes', 'no', 'error')) NOT VALID,
    ADD CONSTRAINT txn_resolution CHECK (
        (resolved_at IS NULL AND resolved_by IS NULL AND resolution IS NULL AND resolution_reason IS NULL)
        OR (resolved_at IS NOT NULL AND resolved_by IS NOT NULL AND resolution_reason IS NOT NULL
            AND resolution IN ('committed', 'rolled_back', 'mixed'))
    ) NOT VALID,
    -- Closed means that both have applied the decision, or that an operator has looked.
    ADD CONSTRAINT txn_closed CHECK (
        closed_at IS NULL OR (state <> 'PREPARING' AND (acked_persist AND acked_counter OR resolved_at IS NOT NULL))
    ) NOT VALID;

-- Rare, and asked for by hand.
CREATE INDEX txn_resolved ON txn (gid) WHERE resolved_at IS NOT NULL;
