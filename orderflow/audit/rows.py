"""The rows of a copy, partition by partition, in the sequence of offsets: the audit's own queries."""

from __future__ import annotations

import heapq
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

#: Rows that are fetched at a time.
AT_ONCE = 500

#: Behind every offset.
BEYOND = 2**63

Row = TypeVar("Row", bound=tuple[Any, ...])


class Ordered(Generic[Row]):
    """Rows in the sequence of their first column, an offset: the one that is next, and taking it."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.row = next(rows, None)
        self.offset: int = BEYOND if self.row is None else self.row[0]

    def take(self) -> Row | None:
        """Take the next row."""
        row = self.row
        self.row = following = next(self._rows, None)
        self.offset = BEYOND if following is None else following[0]
        return row


class EpochRow(NamedTuple):
    """The current life of the log."""

    epoch: int
    topic: str
    topic_id: str
    opened_at: int


class PositionRow(NamedTuple):
    """How far a partition was read."""

    partition: int
    epoch: int
    next_offset: int
    last_offset: int | None
    last_checksum: int | None
    last_event_id: str | None


class SkipRow(NamedTuple):
    """What is kept of a skipped record. ``interrupted``: it has, or had, the reason ``internal_error``."""

    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    placed: int
    event_id: str | None
    opened_by: int
    state: str
    repairs: int
    order_id: str | None
    interrupted: int


class ControlRow(NamedTuple):
    """What is kept of a control."""

    offset: int
    key: bytes | None
    order_id: str | None
    event_id: str
    type: str
    named_offset: int
    if_last: int | None
    operation: str | None
    verdict: str
    taken_event_id: str | None


class OrderRow(NamedTuple):
    """An order."""

    order_id: str
    customer_id: str
    order_date: str
    currency: str
    items: bytes
    total_minor: int
    shipping_minor: int
    status: str
    last_epoch: int
    last_partition: int
    last_offset: int
    updated_at: int


#: The payload as bytes: they are compared with a record's, and need not be decoded for that.
_HISTORY = "offset, order_id, event_id, type, CAST(payload AS BLOB), logged_at, outcome, reason"
_SKIPS = ", ".join(SkipRow._fields).replace("interrupted", "reason = 'internal_error' OR trace IS NOT NULL")
_CONTROLS = ", ".join(ControlRow._fields)
_ORDERS = ", ".join(OrderRow._fields).replace("items", "CAST(items AS BLOB)")


class OrdersCopy:
    """Questions to a copy of orders.db."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def epoch(self) -> EpochRow | None:
        """Give the current life of the log; None before the first."""
        rows = self._connection.execute(
            "SELECT epoch, topic, topic_id, opened_at FROM log_epochs ORDER BY epoch DESC LIMIT 1"
        ).fetchall()
        return EpochRow(*rows[0]) if rows else None

    def positions(self) -> dict[int, PositionRow]:
        """Give how far each partition was read."""
        rows = self._connection.execute(f"SELECT {', '.join(PositionRow._fields)} FROM positions")  # noqa: S608 (no outside text)
        return {row[0]: PositionRow(*row) for row in rows}

    def end(self, epoch: int, partition: int) -> int:
        """Tell the offset behind the last row of a partition."""
        ends = [
            self._connection.execute(
                f"SELECT max(offset) FROM {table} WHERE epoch = ? AND partition = ?",  # noqa: S608 (no outside text)
                (epoch, partition),
            ).fetchone()[0]
            for table in ("history", "skipped_messages", "controls")
        ]
        return max(-1 if end is None else end for end in ends) + 1

    def history(self, epoch: int, partition: int) -> Iterator[tuple[Any, ...]]:
        """Give the rows of history, as `orderflow.audit.model.HistoryRow` has their columns."""
        return self._rows(f"SELECT {_HISTORY} FROM history", epoch, partition)

    def skips(self, epoch: int, partition: int) -> Iterator[SkipRow]:
        """Give the skipped messages."""
        return map(SkipRow._make, self._rows(f"SELECT {_SKIPS} FROM skipped_messages", epoch, partition))

    def controls(self, epoch: int, partition: int) -> Iterator[ControlRow]:
        """Give the controls."""
        return map(ControlRow._make, self._rows(f"SELECT {_CONTROLS} FROM controls", epoch, partition))

    def history_at(self, epoch: int, partition: int, offset: int) -> tuple[Any, ...] | None:
        """Give what stands at a place."""
        return self._one(f"SELECT {_HISTORY} FROM history", epoch, partition, offset)

    def skip_at(self, epoch: int, partition: int, offset: int) -> SkipRow | None:
        """Give the skip at a place."""
        row = self._one(f"SELECT {_SKIPS} FROM skipped_messages", epoch, partition, offset)
        return SkipRow(*row) if row else None

    def older(self, epoch: int, partition: int, begin: int) -> Iterator[tuple[Any, ...]]:
        """Give what was applied from lives of the log that are gone, and from before the beginning of this one.

        In the sequence of places: epoch, offset, order id, event id, payload, time, outcome, reason. For an event id
        that a discard took, the last four are null.
        """
        for old in range(1, epoch + 1):
            asked = {"epoch": old, "partition": partition, "end": begin if old == epoch else BEYOND - 1}
            places = (_in_chunks(self._connection.execute(sql, asked)) for sql in (_OLDER, _TAKEN))
            yield from heapq.merge(*places, key=itemgetter(1))

    def orders(self, partition: int) -> Iterator[OrderRow]:
        """Give the orders that were changed last from a partition."""
        sql = f"SELECT {_ORDERS} FROM orders WHERE last_partition = ?"  # noqa: S608 (no outside text)
        return map(OrderRow._make, _in_chunks(self._connection.execute(sql, (partition,))))

    def order(self, order_id: str) -> OrderRow | None:
        """Give one order."""
        sql = f"SELECT {_ORDERS} FROM orders WHERE order_id = ?"  # noqa: S608 (no outside text)
        row = self._connection.execute(sql, (order_id,)).fetchone()
        return OrderRow(*row) if row else None

    def orders_elsewhere(self, partitions: int) -> Iterator[OrderRow]:
        """Give the orders that were changed last from a partition which the topic does not have."""
        sql = f"SELECT {_ORDERS} FROM orders WHERE last_partition NOT BETWEEN 0 AND ?"  # noqa: S608 (no outside text)
        return map(OrderRow._make, _in_chunks(self._connection.execute(sql, (partitions - 1,))))

    def _rows(self, select: str, epoch: int, partition: int) -> Iterator[tuple[Any, ...]]:
        sql = f"{select} WHERE epoch = ? AND partition = ? ORDER BY offset"
        return _in_chunks(self._connection.execute(sql, (epoch, partition)))

    def _one(self, select: str, epoch: int, partition: int, offset: int) -> tuple[Any, ...] | None:
        sql = f"{select} WHERE epoch = ? AND partition = ? AND offset = ?"
        row: tuple[Any, ...] | None = self._connection.execute(sql, (epoch, partition, offset)).fetchone()
        return row


def _in_chunks(cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(iter(lambda: cursor.fetchmany(AT_ONCE), []))


_OLDER = """
SELECT epoch, offset, order_id, event_id, CAST(payload AS BLOB), logged_at, outcome, reason FROM history
WHERE epoch = :epoch AND partition = :partition AND offset < :end AND order_id IS NOT NULL ORDER BY offset
"""

_TAKEN = """
SELECT epoch, offset, order_id, taken_event_id, NULL, NULL, NULL, NULL FROM controls
WHERE epoch = :epoch AND partition = :partition AND offset < :end AND order_id IS NOT NULL
    AND taken_event_id IS NOT NULL ORDER BY offset
"""
