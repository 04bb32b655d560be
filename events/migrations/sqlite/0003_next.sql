-- One order of what waits instead of two: by topic in `due`, and over all topics by what comes next in each. A row of `due` whose neighbours
-- are hours away is a page to write; a second order of the same rows was a second page.

-- The first slot of the topic in `due`; NULL: nothing waits.
ALTER TABLE topic ADD COLUMN next_at INTEGER;
ALTER TABLE topic ADD COLUMN next_seq INTEGER;
UPDATE topic SET (next_at, next_seq) = (
    SELECT fire_at, seq FROM due WHERE topic_id = topic.id ORDER BY fire_at, seq LIMIT 1);
CREATE INDEX topic_next ON topic (next_at, next_seq) WHERE next_at IS NOT NULL;

-- Kept by the database, so that a binary that does not know of it keeps it too. Rows of `due` are put in and taken out, never changed.
CREATE TRIGGER due_comes AFTER INSERT ON due
WHEN (SELECT next_at IS NULL OR (next_at, next_seq) > (new.fire_at, new.seq) FROM topic WHERE id = new.topic_id)
BEGIN
    UPDATE topic SET next_at = new.fire_at, next_seq = new.seq WHERE id = new.topic_id;
END;
CREATE TRIGGER due_goes AFTER DELETE ON due
WHEN (SELECT next_seq = old.seq FROM topic WHERE id = old.topic_id)
BEGIN
    UPDATE topic SET (next_at, next_seq) = (
        SELECT fire_at, seq FROM due WHERE topic_id = old.topic_id ORDER BY fire_at, seq LIMIT 1)
    WHERE id = old.topic_id;
END;

DROP INDEX due_at;
