-- outbox.db: what is true nowhere else. Events that Kafka did not acknowledge, and alerts. Several processes write it, in
-- short transactions. Times are in ms since 1970, by this machine's clock.

-- Events that wait for Kafka, and for a while those that came to it. seq is the order of arrival; within an order it is
-- the order of delivery. held: Kafka refuses the event, and the later ones of its order stay behind it until a person
-- retries or discards it. sent: it was handed to the network without an acknowledgement, so it may be on the topic.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    headers BLOB NOT NULL,
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

CREATE INDEX outbox_by_state ON outbox (state, seq, order_id);

-- How much is in each state, kept by the triggers below: counting would walk over all of it. ever counts arrivals only.
CREATE TABLE outbox_totals (
    state TEXT PRIMARY KEY,
    events INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    ever INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO outbox_totals (state) VALUES ('waiting'), ('held'), ('delivered'), ('discarded');

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
