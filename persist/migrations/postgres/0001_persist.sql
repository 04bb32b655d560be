-- Topics, who is subscribed, what was published, what was seen, and what is prepared. Times are microseconds since 1970.

-- The heads move with every publish: half-filled pages let Postgres do that in place, without touching an index.
CREATE TABLE topic (
    id                   UUID PRIMARY KEY,
    name                 TEXT COLLATE "C" NOT NULL UNIQUE,
    creator_id           UUID NOT NULL,
    status               TEXT NOT NULL CHECK (status IN ('active', 'inactive')),
    -- Seconds a notification is kept; NULL: for ever.
    longevity            BIGINT,
    last_offset          BIGINT NOT NULL DEFAULT 0,
    last_broadcast_no    BIGINT NOT NULL DEFAULT 0,
    -- When the newest notification was committed; the next one is later, whatever the clocks say.
    last_at              BIGINT NOT NULL DEFAULT 0,
    trimmed_offset       BIGINT NOT NULL DEFAULT 0,
    trimmed_broadcast_no BIGINT NOT NULL DEFAULT 0,
    created_at           BIGINT NOT NULL
) WITH (fillfactor = 50);
-- For the bound on topics per creator.
CREATE INDEX topic_creator ON topic (creator_id);
-- For the sweep.
CREATE INDEX topic_longevity ON topic (id) WHERE longevity IS NOT NULL;

-- What came up to `from_offset` was before the subscription and is not in its inbox. Broadcasts up to number `floor` are seen;
-- `from_at` and `floor_at` say the same in `inserted_at`, by which inboxes are read.
CREATE TABLE subscription (
    user_id       UUID NOT NULL,
    topic_id      UUID NOT NULL,
    subscribed_at BIGINT NOT NULL,
    from_offset   BIGINT NOT NULL,
    from_at       BIGINT NOT NULL,
    floor         BIGINT NOT NULL,
    floor_at      BIGINT NOT NULL,
    PRIMARY KEY (user_id, topic_id)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX subscription_topic ON subscription (topic_id, user_id);

-- `inserted_at` grows strictly with the offset within a topic. `broadcast_no` counts the topic's broadcasts up to and with this
-- row: for a broadcast it is its number, for a targeted notification that of the last broadcast before it.
CREATE TABLE notification (
    topic_id     UUID NOT NULL,
    "offset"     BIGINT NOT NULL,
    broadcast_no BIGINT NOT NULL,
    targeted     BOOLEAN NOT NULL,
    id           UUID NOT NULL UNIQUE,
    gid          UUID NOT NULL UNIQUE,
    from_user_id UUID NOT NULL,
    from_email   TEXT NOT NULL,
    message      TEXT NOT NULL,
    priority     SMALLINT NOT NULL,
    inserted_at  BIGINT NOT NULL,
    PRIMARY KEY (topic_id, "offset")
);
-- The inbox: a topic's broadcasts, newest first, past any number of notifications to others.
CREATE UNIQUE INDEX notification_broadcast ON notification (topic_id, inserted_at) WHERE NOT targeted;

-- Who a targeted notification is for.
CREATE TABLE recipient (
    topic_id    UUID NOT NULL,
    "offset"    BIGINT NOT NULL,
    user_id     UUID NOT NULL,
    inserted_at BIGINT NOT NULL,
    seen        BOOLEAN NOT NULL,
    PRIMARY KEY (topic_id, "offset", user_id)
);
-- What is unread of a user is one range, and so is what is unread, or seen, of a user and topic.
CREATE INDEX recipient_inbox ON recipient (user_id, seen, topic_id, inserted_at);

-- Broadcasts above the subscription's floor that were seen out of order.
CREATE TABLE exception (
    user_id      UUID NOT NULL,
    topic_id     UUID NOT NULL,
    broadcast_no BIGINT NOT NULL,
    "offset"     BIGINT NOT NULL,
    inserted_at  BIGINT NOT NULL,
    PRIMARY KEY (user_id, topic_id, broadcast_no)
);

-- Two-phase commit: what is prepared, and what became of it. The request's columns are empty once it is decided.
CREATE TABLE ptxn (
    gid             UUID PRIMARY KEY,
    origin          TEXT NOT NULL CHECK (origin IN ('coordinator', 'client')),
    user_id         UUID NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('PREPARED', 'COMMITTED', 'ABORTED')),
    req_hash        BYTEA NOT NULL,
    prepared_at     BIGINT NOT NULL,
    -- Reserved from the prepare on, so that no commit meets a notification of the same id.
    notification_id UUID UNIQUE,
    topic_id        UUID,
    from_email      TEXT,
    message         TEXT,
    priority        SMALLINT,
    -- NULL: every subscriber.
    to_users        UUID[]
) WITH (fillfactor = 70);
-- Few at any time: for expiry and the alarm.
CREATE INDEX ptxn_prepared ON ptxn (prepared_at) WHERE state = 'PREPARED';
