-- Topics, who is subscribed, what was published, what was seen, and what is prepared. Times are microseconds since 1970.

CREATE TABLE topic (
    id                   BLOB NOT NULL PRIMARY KEY,
    name                 TEXT NOT NULL UNIQUE,
    creator_id           BLOB NOT NULL,
    status               TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    -- Seconds a notification is kept; NULL: for ever.
    longevity            INTEGER,
    last_offset          INTEGER NOT NULL DEFAULT 0,
    last_broadcast_no    INTEGER NOT NULL DEFAULT 0,
    -- When the newest notification was committed; the next one is later, whatever the clocks say.
    last_at              INTEGER NOT NULL DEFAULT 0,
    trimmed_offset       INTEGER NOT NULL DEFAULT 0,
    trimmed_broadcast_no INTEGER NOT NULL DEFAULT 0,
    created_at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- For the bound on topics per creator.
CREATE INDEX topic_creator ON topic (creator_id);
-- For the sweep.
CREATE INDEX topic_longevity ON topic (id) WHERE longevity IS NOT NULL;

-- What came up to `from_offset` was before the subscription and is not in its inbox. Broadcasts up to number `floor` are seen;
-- `from_at` and `floor_at` say the same in `inserted_at`, by which inboxes are read.
CREATE TABLE subscription (
    user_id       BLOB NOT NULL,
    topic_id      BLOB NOT NULL,
    subscribed_at INTEGER NOT NULL,
    from_offset   INTEGER NOT NULL,
    from_at       INTEGER NOT NULL,
    floor         INTEGER NOT NULL,
    floor_at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, topic_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX subscription_topic ON subscription (topic_id, user_id);

-- `inserted_at` grows strictly with the offset within a topic. `broadcast_no` counts the topic's broadcasts up to and with this
-- row: for a broadcast it is its number, for a targeted notification that of the last broadcast before it.
CREATE TABLE notification (
    topic_id     BLOB NOT NULL,
    "offset"     INTEGER NOT NULL,
    broadcast_no INTEGER NOT NULL,
    targeted     INTEGER NOT NULL,
    id           BLOB NOT NULL UNIQUE,
    gid          BLOB NOT NULL UNIQUE,
    from_user_id BLOB NOT NULL,
    from_email   TEXT NOT NULL,
    message      TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    inserted_at  INTEGER NOT NULL,
    UNIQUE (topic_id, "offset")
) STRICT;
-- The inbox: a topic's broadcasts, newest first, past any number of notifications to others.
CREATE UNIQUE INDEX notification_broadcast ON notification (topic_id, inserted_at) WHERE targeted = 0;

-- Who a targeted notification is for.
CREATE TABLE recipient (
    topic_id    BLOB NOT NULL,
    "offset"    INTEGER NOT NULL,
    user_id     BLOB NOT NULL,
    inserted_at INTEGER NOT NULL,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (topic_id, "offset", user_id)
) STRICT, WITHOUT ROWID;
-- What is unread of a user is one range, and so is what is unread, or seen, of a user and topic.
CREATE INDEX recipient_inbox ON recipient (user_id, seen, topic_id, inserted_at);

-- Broadcasts above the subscription's floor that were seen out of order.
CREATE TABLE exception (
    user_id      BLOB NOT NULL,
    topic_id     BLOB NOT NULL,
    broadcast_no INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    inserted_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, topic_id, broadcast_no)
) STRICT, WITHOUT ROWID;

-- Two-phase commit: what is prepared, and what became of it. The request's columns are empty once it is decided.
CREATE TABLE ptxn (
    gid             BLOB NOT NULL PRIMARY KEY,
    origin          TEXT NOT NULL CHECK (origin IN ('coordinator', 'client')),
    user_id         BLOB NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('PREPARED', 'COMMITTED', 'ABORTED')),
    req_hash        BLOB NOT NULL,
    prepared_at     INTEGER NOT NULL,
    -- Reserved from the prepare on, so that no commit meets a notification of the same id.
    notification_id BLOB UNIQUE,
    topic_id        BLOB,
    from_email      TEXT,
    message         TEXT,
    priority        INTEGER,
    -- JSON list of user ids in hexadecimal; NULL: every subscriber.
    to_users        TEXT
) STRICT;
-- Few at any time: for expiry and the alarm.
CREATE INDEX ptxn_prepared ON ptxn (prepared_at) WHERE state = 'PREPARED';
