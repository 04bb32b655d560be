-- Who follows a category's log, one holder at a time, and how far it has come: the retention drops nothing above `position`.
CREATE TABLE consumer (
    name     TEXT COLLATE "C" PRIMARY KEY,
    topic_id BIGINT NOT NULL,
    position BIGINT NOT NULL,
    holder   TEXT NOT NULL,
    term     BIGINT NOT NULL,
    until    BIGINT NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX consumer_topic ON consumer (topic_id);

-- What waits about one thing, in order of time. Events without a key are not in it.
CREATE INDEX scheduled_key ON scheduled (topic_id, key, fire_at, seq) WHERE key IS NOT NULL;
