"""Writing the projection. One process does (`orderflow.process.exclusive_lock`), one batch at a time.

A `Batch` of rows is written in one transaction together with the positions it leads to: what was read and what came of
it are never apart.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import structlog

from orderflow.clock import now_ms
from orderflow.store.bounded import look_for_damage
from orderflow.store.places import Places, current_epoch, positions
from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, PositionRow, SkippedRow
from orderflow.store.second_set import remove_leftovers
from orderflow.store.sqlite import DatabaseError, immediate, open_writer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from orderflow.broker.topic import Topic
    from orderflow.records import Position
    from orderflow.settings import Settings
    from orderflow.store.rows import Batch
    from orderflow.store.sqlite import Connection


log = structlog.get_logger(__name__)


#: Rows of one INSERT; fewer go one by one.
ROWS_AT_ONCE = 100


class Writer:
    """The projection's one writer. ``connection`` is given for a copy of the tables, or a second set of them."""

    def __init__(self, settings: Settings, connection: Connection | None = None) -> None:
        self._connection = connection or _opened(settings)
        self._wal = settings.orders_db.with_name(settings.orders_db.name + "-wal")
        self._wal_limit = settings.wal_limit_mb * 1024 * 1024
        self.places = Places(self._connection)

    def epoch(self) -> tuple[int, str] | None:
        """Give the current epoch and its topic id; None before the first."""
        return current_epoch(self._connection.execute)

    def open_epoch(self, topic: Topic, reason: str) -> int:
        """Begin a new life of the topic: every partition is read from its start again."""
        current = self.epoch()
        epoch = 1 if current is None else current[0] + 1
        with immediate(self._connection):
            self._connection.execute(
                "INSERT INTO log_epochs (epoch, topic, topic_id, opened_at, reason) VALUES (?, ?, ?, ?, ?)",
                (epoch, topic.name, topic.topic_id, now_ms(), reason),
            )
            self._connection.execute("DELETE FROM positions")
        return epoch

    def damage(self, at_most_s: float) -> str | None:
        """Say what is wrong with the file, as far as that is found in so many seconds."""
        return look_for_damage(self._connection, at_most_s)

    def positions(self) -> dict[int, Position]:
        """Give where reading goes on, by partition."""
        return positions(self._connection.execute)

    def known_orders(self, order_ids: Collection[str]) -> set[str]:
        """Tell which of these orders exist."""
        found = self._connection.execute(
            "SELECT order_id FROM orders WHERE order_id IN (SELECT value FROM json_each(?))", (_json(order_ids),)
        )
        return {order_id for (order_id,) in found.fetchall()}

    def owners(self, ids: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        """Give the fingerprints of those (order id, event id) pairs that were seen before, of their first place.

        A pair that a discard took has an empty one, unless an event owned it before.
        """
        owners = self._taken(ids)
        rest = set(ids)
        while rest:
            # One query asks for an event id once; that two orders have the same one is rare.
            asked = {event_id: order_id for order_id, event_id in rest}
            rest -= {(order_id, event_id) for event_id, order_id in asked.items()}
            found = self._connection.execute(_OWNERS, (_json(asked),))
            owners |= {(order_id, event_id): fingerprint for order_id, event_id, fingerprint in found.fetchall()}
        return owners

    def _taken(self, ids: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        ((some,),) = self._connection.execute(_ANY_TAKEN).fetchall()
        if not some:
            return {}
        found = self._connection.execute(_TAKEN, (_json([event_id for _, event_id in ids]),)).fetchall()
        return {pair: b"" for pair in found if pair in ids}

    def write(self, batch: Batch) -> None:
        """Write a batch in one transaction: all of it, or nothing."""
        with immediate(self._connection):
            self._insert("history", HistoryRow._fields, batch.history)
            self._insert("skipped_messages", SkippedRow._fields, batch.skipped)
            self._insert("orders", OrderRow._fields, list(batch.created.values()))
            self._connection.executemany(_SET_STATUS, batch.statuses.values())
            if batch.controls:
                self._write_control(batch)
            self._connection.executemany(_SET_POSITION, batch.positions.values())
            now = now_ms()
            reached = [(row.epoch, row.partition, row.next_offset, now) for row in batch.positions.values()]
            self._connection.executemany(_NOTE_PROGRESS, reached)
        self._bound_wal()

    def _write_control(self, batch: Batch) -> None:
        """Write what a control came to. A row that is there keeps its number: it says when the row arrived."""
        place = ("epoch", "partition", "offset")
        self._insert("controls", ControlRow._fields, batch.controls)
        self._connection.executemany(upsert_sql("history", HistoryRow._fields, place), batch.stands)
        self._connection.executemany(upsert_sql("skipped_messages", SkippedRow._fields, place), batch.restated)
        self._set_orders(batch.refolded)

    def write_orders(self, orders: Mapping[str, OrderRow | None]) -> None:
        """Write orders as they were folded anew; None removes one."""
        with immediate(self._connection):
            self._set_orders(orders)

    def _set_orders(self, orders: Mapping[str, OrderRow | None]) -> None:
        for order_id, row in orders.items():
            if row is None:
                self._connection.execute("DELETE FROM orders WHERE order_id = ?", (order_id,))
            else:
                self._connection.execute(upsert_sql("orders", OrderRow._fields, ("order_id",)), row)

    def _insert(self, table: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows, many with each statement: between two statements Python's lock goes to another thread."""
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        statement = insert_sql(table, columns, ROWS_AT_ONCE)
        for start in range(0, whole, ROWS_AT_ONCE):
            self._connection.execute(statement, list(chain.from_iterable(rows[start : start + ROWS_AT_ONCE])))
        self._connection.executemany(insert_sql(table, columns), rows[whole:])

    def _bound_wal(self) -> None:
        """Restart the WAL when busy readers kept the automatic checkpoints from doing so."""
        try:
            size = self._wal.stat().st_size
        except OSError:  # Mostly it is not there. The batch is committed: nothing here may pass for an error of it.
            return
        if size > self._wal_limit:
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except DatabaseError as error:  # The batch is committed: that the WAL stays long must not undo it.
                log.warning("store.checkpoint_failed", wal_bytes=size, error=str(error))

    def close(self) -> None:
        """Close the database; SQLite checkpoints the WAL."""
        self._connection.close()


def _opened(settings: Settings) -> Connection:
    """Open the file, without what a rebuild left there that was killed."""
    connection = open_writer(settings.orders_db, busy_timeout_s=settings.store_busy_timeout_s)
    try:
        remove_leftovers(connection)
    except BaseException:
        connection.close()
        raise
    return connection


_OWNERS = """
SELECT h.order_id, h.event_id, h.fingerprint
FROM json_each(?) AS wanted
JOIN history AS h ON h.order_id = wanted.value AND h.event_id = wanted.key
WHERE h.outcome != 'duplicate' AND NOT EXISTS ( -- what was discarded in conflict may own the id by now
    SELECT 1 FROM controls AS c
    WHERE c.taken_event_id = h.event_id AND c.order_id = h.order_id AND (c.epoch, c.offset) < (h.epoch, h.offset)
)
ORDER BY h.epoch DESC, h.offset DESC -- so the first place is the last that is read: it owns the id
"""

_ANY_TAKEN = "SELECT EXISTS (SELECT 1 FROM controls WHERE taken_event_id IS NOT NULL)"

_TAKEN = """
SELECT c.order_id, c.taken_event_id
FROM controls AS c JOIN json_each(?) AS wanted ON c.taken_event_id = wanted.value
WHERE c.order_id IS NOT NULL
"""

_SET_STATUS = """
UPDATE orders SET status = ?, last_epoch = ?, last_partition = ?, last_offset = ?, updated_at = ? WHERE order_id = ?
"""


@cache
def insert_sql(table: str, columns: tuple[str, ...], rows: int = 1, verb: str = "INSERT") -> str:
    """Write the statement that inserts so many rows."""
    row = f"({', '.join('?' * len(columns))})"
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


@cache
def upsert_sql(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    """Write the statement that inserts a row, or sets all its columns where its key is there."""
    others = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return f"{insert_sql(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}"


_SET_POSITION = insert_sql("positions", PositionRow._fields, verb="INSERT OR REPLACE")

_NOTE_PROGRESS = insert_sql("progress", ("epoch", "partition", "next_offset", "read_at"), verb="INSERT OR IGNORE")


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()
