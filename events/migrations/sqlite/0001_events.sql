-- The log, the schedule, recurring schedules and the schedule's lease. Times are microseconds since 1970.

-- A category. Rows are never deleted: an offset is not given twice.
CREATE TABLE topic (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    last_offset    INTEGER NOT NULL DEFAULT 0,
    trimmed_offset INTEGER NOT NULL DEFAULT 0,
    -- Events in `scheduled`.
    waiting        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX topic_waiting ON topic (name) WHERE waiting > 0;

-- The log. `place` follows the order of appending over all topics: retention by age takes from its beginning.
-- Data stands last: what is before it is read without it.
CREATE TABLE event (
    place        INTEGER PRIMARY KEY,
    topic_id     INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    id           TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    fire_at      INTEGER NOT NULL,
    fired_at     INTEGER NOT NULL,
    key          TEXT,
    owner        TEXT,
    recurring_id TEXT,
    data         BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_offset ON event (topic_id, "offset");

-- The last number given to an arriving event. Never given twice, so that a number has one time to fire for ever.
CREATE TABLE sequence (last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);

-- What waits, whole, in order of arrival: new rows go to the end, and what is posted together lies together.
CREATE TABLE scheduled (
    seq          INTEGER PRIMARY KEY,
    topic_id     INTEGER NOT NULL,
    id           TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    fire_at      INTEGER NOT NULL,
    key          TEXT,
    owner        TEXT,
    recurring_id TEXT,
    data         BLOB NOT NULL
) STRICT;
-- For deleting a recurring schedule; ordinary events are not in it.
CREATE INDEX scheduled_recurring ON scheduled (recurring_id) WHERE recurring_id IS NOT NULL;

-- The same without data, twice: by topic for the windows, and over all topics. Some 20 bytes a row, so that the order of a million
-- events stays in the page cache.
CREATE TABLE due (
    topic_id INTEGER NOT NULL,
    fire_at  INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    PRIMARY KEY (topic_id, fire_at, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX due_at ON due (fire_at, seq, priority);

-- Every id that is waiting or in the log, and where: "offset" is NULL while it waits. By id first: ids of version 7 go to the end, and
-- an id alone finds its events.
CREATE TABLE seen (
    id       TEXT NOT NULL,
    topic_id INTEGER NOT NULL,
    seq      INTEGER,
    "offset" INTEGER,
    PRIMARY KEY (id, topic_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE recurring (
    id         TEXT NOT NULL PRIMARY KEY,
    topic_id   INTEGER NOT NULL,
    key        TEXT,
    priority   INTEGER NOT NULL,
    rule       TEXT NOT NULL,
    zone       TEXT NOT NULL,
    on_missed  TEXT NOT NULL CHECK (on_missed IN ('fire_all', 'fire_last', 'skip')),
    start_at   INTEGER,
    end_at     INTEGER,
    count      INTEGER,
    owner      TEXT,
    created_at INTEGER NOT NULL,
    paused     INTEGER NOT NULL,
    -- The next nominal time; NULL: finished.
    next_at    INTEGER,
    last_at    INTEGER,
    made       INTEGER NOT NULL,
    skipped    INTEGER NOT NULL,
    data       BLOB NOT NULL
) STRICT;
CREATE INDEX recurring_next ON recurring (next_at) WHERE paused = 0 AND next_at IS NOT NULL;
CREATE INDEX recurring_topic ON recurring (topic_id, id);

-- Which nominal times became events.
CREATE TABLE occurrence (
    recurring_id TEXT NOT NULL,
    nominal_at   INTEGER NOT NULL,
    PRIMARY KEY (recurring_id, nominal_at)
) STRICT, WITHOUT ROWID;

-- One row: who drives the schedule.
CREATE TABLE lease (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder TEXT NOT NULL,
    term   INTEGER NOT NULL,
    until  INTEGER NOT NULL
) STRICT;
