-- Who follows a category's log, one holder at a time, and how far it has come: the retention drops nothing above `position`.
CREATE TABLE consumer (
    name     TEXT NOT NULL PRIMARY KEY,
    topic_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    holder   TEXT NOT NULL,
    term     INTEGER NOT NULL,
    until    INTEGER NOT NULL
) STRICT;
CREATE INDEX consumer_topic ON consumer (topic_id, position);

-- What waits about one thing, in order of time. Events without a key are not in it.
CREATE INDEX scheduled_key ON scheduled (topic_id, key, fire_at, seq) WHERE key IS NOT NULL;
