-- The log, the schedule, recurring schedules and the schedule's lease. Times are microseconds since 1970.

-- A category. Rows are never deleted: an offset is not given twice. Heads move with every append: half-filled pages let Postgres do
-- that in place, without touching an index.
CREATE TABLE topic (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           TEXT COLLATE "C" NOT NULL UNIQUE,
    last_offset    BIGINT NOT NULL DEFAULT 0,
    trimmed_offset BIGINT NOT NULL DEFAULT 0,
    -- Events in `scheduled`.
    waiting        BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX topic_waiting ON topic (name) WHERE waiting > 0;

-- The log, a partition per day of append (`event_d<days since 1970>`), made ahead and dropped whole. What no partition is there for,
-- because a clock was wrong, goes to the default one and is deleted row by row.
CREATE TABLE event (
    topic_id     BIGINT NOT NULL,
    "offset"     BIGINT NOT NULL,
    id           TEXT COLLATE "C" NOT NULL,
    priority     SMALLINT NOT NULL,
    created_at   BIGINT NOT NULL,
    fire_at      BIGINT NOT NULL,
    fired_at     BIGINT NOT NULL,
    key          TEXT,
    owner        TEXT,
    recurring_id TEXT,
    data         BYTEA NOT NULL,
    PRIMARY KEY (topic_id, "offset", fired_at)
) PARTITION BY RANGE (fired_at);
CREATE TABLE event_default PARTITION OF event DEFAULT;

-- Numbers arriving events. Never gives one twice, so that a number has one time to fire for ever.
CREATE SEQUENCE arrival;

-- What waits, whole.
CREATE TABLE scheduled (
    seq          BIGINT PRIMARY KEY,
    topic_id     BIGINT NOT NULL,
    id           TEXT COLLATE "C" NOT NULL,
    priority     SMALLINT NOT NULL,
    created_at   BIGINT NOT NULL,
    fire_at      BIGINT NOT NULL,
    key          TEXT,
    owner        TEXT,
    recurring_id TEXT COLLATE "C",
    data         BYTEA NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
-- For deleting a recurring schedule; ordinary events are not in it.
CREATE INDEX scheduled_recurring ON scheduled (recurring_id) WHERE recurring_id IS NOT NULL;

-- The same without data, found by topic for the windows, and over all topics. A queue's table is emptied at one end and filled at the
-- other: it is vacuumed before its dead rows are in the way of the earliest deadline.
CREATE TABLE due (
    topic_id BIGINT NOT NULL,
    fire_at  BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    priority SMALLINT NOT NULL,
    PRIMARY KEY (topic_id, fire_at, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
CREATE INDEX due_at ON due (fire_at, seq);

-- Every id that is waiting or in the log, and where: "offset" is NULL while it waits. Not part of the log's partitions: an id is unique over all
-- of them. One at or below its topic's `trimmed_offset` is free; the row goes later.
CREATE TABLE seen (
    id       TEXT COLLATE "C" NOT NULL,
    topic_id BIGINT NOT NULL,
    seq      BIGINT,
    "offset" BIGINT,
    PRIMARY KEY (id, topic_id)
) WITH (fillfactor = 80);

CREATE TABLE recurring (
    id         TEXT COLLATE "C" PRIMARY KEY,
    topic_id   BIGINT NOT NULL,
    key        TEXT,
    priority   SMALLINT NOT NULL,
    rule       TEXT NOT NULL,
    zone       TEXT NOT NULL,
    on_missed  TEXT NOT NULL CHECK (on_missed IN ('fire_all', 'fire_last', 'skip')),
    start_at   BIGINT,
    end_at     BIGINT,
    count      BIGINT,
    owner      TEXT,
    created_at BIGINT NOT NULL,
    paused     BOOLEAN NOT NULL,
    -- The next nominal time; NULL: finished.
    next_at    BIGINT,
    last_at    BIGINT,
    made       BIGINT NOT NULL,
    skipped    BIGINT NOT NULL,
    data       BYTEA NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX recurring_next ON recurring (next_at) WHERE NOT paused AND next_at IS NOT NULL;
CREATE INDEX recurring_topic ON recurring (topic_id, id);

-- Which nominal times became events.
CREATE TABLE occurrence (
    recurring_id TEXT COLLATE "C" NOT NULL,
    nominal_at   BIGINT NOT NULL,
    PRIMARY KEY (recurring_id, nominal_at)
);

-- One row: who drives the schedule.
CREATE TABLE lease (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder TEXT NOT NULL,
    term   BIGINT NOT NULL,
    until  BIGINT NOT NULL
);
