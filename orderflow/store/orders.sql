-- orders.db: the projection of the topic order_events. One process writes it; see docs/adr/0004-one-writer.md.
-- "log time" is the broker's clock at the record's arrival, in ms since 1970. Amounts are in minor units (1/100).
-- A place is (epoch, partition, offset). Nothing here but orders.arrival and progress depends
-- on when a record was applied.

-- A log is one life of the topic: a new one is opened when the old log was lost, and its places follow behind.
CREATE TABLE log_epochs (
    epoch INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    topic_id TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;

-- Where reading goes on, moved in the same transaction as the effects of what was read. The last record's checksum
-- and event id tell whether the log still is the one that was applied.
CREATE TABLE positions (
    partition INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    last_offset INTEGER,
    last_checksum INTEGER,
    last_event_id TEXT
) STRICT;

-- When reading had come how far: a row for each batch and partition. A record was applied, or skipped, at the time of the
-- first row behind its offset. After a rebuild of a lost file these are the times of that.
CREATE TABLE progress (
    epoch INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    read_at INTEGER NOT NULL,
    PRIMARY KEY (epoch, partition, next_offset)
) STRICT, WITHOUT ROWID;

-- What stands at each place: every record that decodes to an event, applied or not, or the mended event that an accepted
-- repair put there. order_id is the order whose history it belongs to; NULL when it is in none, because its key or its
-- partition is not that order's. logged_at is the place's, whatever stands there.
CREATE TABLE history (
    epoch INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    order_id TEXT,
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    logged_at INTEGER NOT NULL,
    trace_id TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('applied', 'duplicate', 'skipped')),
    reason TEXT CHECK ((reason IS NOT NULL) = (outcome = 'skipped')),
    PRIMARY KEY (epoch, partition, offset)
) STRICT;

-- An order's history, and the owner of an event id within it.
CREATE INDEX history_by_order ON history (order_id, event_id);

-- Every record that was not applied, as it came, also when it is healed by now. order_id is the order it is about, as far
-- as that is known; placed: it lies, or would lie, in that order's history. detail is the reason's sentence for this
-- record. opened_by is the offset of the record that made it a skip: its own, or that of a repair. repairs counts those
-- that were accepted for this very place. exception is the class of the error, attempts how often it was tried.
CREATE TABLE skipped_messages (
    epoch INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    key BLOB,
    value BLOB,
    headers TEXT NOT NULL,
    logged_at INTEGER,
    order_id TEXT,
    placed INTEGER NOT NULL CHECK (placed IN (0, 1)),
    event_id TEXT,
    exception TEXT,
    attempts INTEGER NOT NULL DEFAULT 1,
    trace TEXT,
    trace_id TEXT,
    opened_by INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'repaired', 'healed', 'discarded')),
    repairs INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (epoch, partition, offset)
) STRICT;

CREATE INDEX skipped_by_order ON skipped_messages (order_id) WHERE order_id IS NOT NULL;

-- Those of one event. One that decodes is in history, too.
CREATE INDEX skipped_by_event ON skipped_messages (event_id) WHERE event_id IS NOT NULL;

-- Lists, newest first; counts; walks over many in the sequence of places. None of them sorts.
CREATE INDEX skipped_by_state ON skipped_messages (state);

CREATE INDEX skipped_by_reason ON skipped_messages (state, reason);

CREATE INDEX skipped_by_place ON skipped_messages (state, epoch, partition, offset);

-- The sequence in which they became skips, on each partition.
CREATE INDEX skipped_by_opening ON skipped_messages (epoch, partition, opened_by, offset);

-- Every control record that decodes, and what came of it: docs/adr/0013-repairs-on-the-topic.md. order_id is the order
-- whose history holds the place it names; NULL where that is in none. taken_event_id: by this discard the order owns an
-- event id that no event stands for.
CREATE TABLE controls (
    epoch INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    key BLOB,
    order_id TEXT,
    event_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    type TEXT NOT NULL,
    named_offset INTEGER NOT NULL,
    if_last INTEGER,
    operation TEXT,
    author TEXT NOT NULL,
    note TEXT NOT NULL,
    successor TEXT,
    payload TEXT,
    logged_at INTEGER NOT NULL,
    trace_id TEXT,
    verdict TEXT NOT NULL CHECK (verdict IN ('accepted', 'superseded', 'stale', 'invalid_control', 'duplicate')),
    detail TEXT NOT NULL,
    taken_event_id TEXT,
    PRIMARY KEY (epoch, partition, offset)
) STRICT;

CREATE INDEX controls_by_event ON controls (event_id);

CREATE INDEX controls_by_order ON controls (order_id) WHERE order_id IS NOT NULL;

CREATE INDEX controls_by_key ON controls (key);

CREATE INDEX controls_taking ON controls (taken_event_id) WHERE taken_event_id IS NOT NULL;

CREATE INDEX controls_by_place ON controls (epoch, partition, named_offset);

-- The orders: the fold of each one's history. arrival numbers them as they came to be, for pages by key.
CREATE TABLE orders (
    arrival INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE,
    customer_id TEXT NOT NULL,
    order_date TEXT NOT NULL,
    currency TEXT NOT NULL,
    items TEXT NOT NULL,
    total_minor INTEGER NOT NULL,
    shipping_minor INTEGER NOT NULL,
    status TEXT NOT NULL,
    last_epoch INTEGER NOT NULL,
    last_partition INTEGER NOT NULL,
    last_offset INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
