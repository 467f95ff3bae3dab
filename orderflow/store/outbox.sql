-- outbox.db: what is true nowhere else. Events that Kafka did not acknowledge, operators' commands, and alerts. Several
-- processes write it, in short transactions. Times are in ms since 1970, by this machine's clock.
-- A file of an earlier version is brought to this one when it is opened (orderflow/store/migration.py): what a column
-- of the same name held stays, a new one needs a default, and what is inserted here must not be in the way of what was
-- there.

-- Events and controls that wait for Kafka, and for a while those that came to it. seq is the order of arrival; within a
-- lane it is the order of delivery. held: Kafka refuses it, and the later ones of its lane stay behind it until a person
-- retries or discards it. sent: it was handed to the network without an acknowledgement, so it may be on the topic.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    -- control: a repair or discard of a skipped message (docs/adr/0013-repairs-on-the-topic.md). named is that message,
    -- epoch-partition-offset; an event that is sent again in its stead names it, too.
    kind TEXT NOT NULL DEFAULT 'event' CHECK (kind IN ('event', 'control')),
    named TEXT,
    -- '' where a control is about no order.
    order_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- Of a discard whose message is sent again at the end: the id of that event. It is about that event's order.
    successor TEXT,
    -- The events of an order are one lane, and so are the controls about it: neither holds up the other. A control about
    -- no order is a lane of its own, and one with a successor waits behind that: what it closes would else be gone.
    lane TEXT NOT NULL AS (
        iif(successor IS NULL, kind, 'event') || ' ' || iif(order_id = '', event_id, order_id)
    ),
    key BLOB,
    value BLOB NOT NULL,
    headers BLOB NOT NULL,
    -- Where it is to be written; NULL: the partition of its key.
    to_partition INTEGER,
    bytes INTEGER NOT NULL,
    trace_id TEXT NOT NULL,
    sent INTEGER NOT NULL,
    spooled_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'held', 'delivered', 'discarded')),
    reason TEXT,
    author TEXT,
    partition INTEGER,
    offset INTEGER,
    settled_at INTEGER
) STRICT;

-- An event waits once, however often its caller sends it again. What was discarded may come again.
CREATE UNIQUE INDEX outbox_by_event ON outbox (order_id, event_id) WHERE state != 'discarded';

-- With kind and order: which orders have undelivered events is asked several times a second, and told from this alone.
CREATE INDEX outbox_by_state ON outbox (state, seq, kind, order_id);

-- Whether a control for a skipped message is under way.
CREATE INDEX outbox_by_named ON outbox (named) WHERE named IS NOT NULL;

-- How much is in each state, kept by the triggers below: counting would walk over all of it. ever counts arrivals only.
CREATE TABLE outbox_totals (
    state TEXT PRIMARY KEY,
    events INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    ever INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT OR IGNORE INTO outbox_totals (state) VALUES ('waiting'), ('held'), ('delivered'), ('discarded');

CREATE TRIGGER outbox_added AFTER INSERT ON outbox BEGIN
    UPDATE outbox_totals SET events = events + 1, bytes = bytes + new.bytes, ever = ever + 1 WHERE state = new.state;
END;

CREATE TRIGGER outbox_moved AFTER UPDATE OF state ON outbox WHEN old.state != new.state BEGIN
    UPDATE outbox_totals SET events = events - 1, bytes = bytes - old.bytes WHERE state = old.state;
    UPDATE outbox_totals SET events = events + 1, bytes = bytes + new.bytes, ever = ever + 1 WHERE state = new.state;
END;

CREATE TRIGGER outbox_removed AFTER DELETE ON outbox BEGIN
    UPDATE outbox_totals SET events = events - 1, bytes = bytes - old.bytes WHERE state = old.state;
END;

-- For writing something, to find out whether the disk takes it. Empty but for that moment.
CREATE TABLE outbox_trial (value BLOB NOT NULL) STRICT;

-- How far skipped messages were copied to the dead-letter topic: the last of each partition, in the sequence of
-- skipped_by_opening in orders.sql. topic_id: a projection that was begun anew counts its epochs from 1 again, and those
-- of another topic are others.
CREATE TABLE dead_letters (
    topic_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    opened_by INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (topic_id, epoch, partition)
) STRICT;

-- What needs a person. cause is one of the closed set in orderflow/alerts; at most one alert of a cause is open.
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cause TEXT NOT NULL,
    severity TEXT NOT NULL,
    program TEXT NOT NULL,
    detail TEXT NOT NULL,
    affected INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    note TEXT,
    resolved_at INTEGER,
    resolution TEXT
) STRICT;

CREATE UNIQUE INDEX one_open_alert ON alerts (cause) WHERE resolved_at IS NULL;
