"""The rows of a copy, partition by partition, in the sequence of offsets: the audit's own queries."""

from __future__ import annotations

import heapq
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow.audit.places import BEYOND

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

#: Rows that are fetched at a time.
AT_ONCE = 500


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
    headers: bytes
    logged_at: int | None
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
    author: str
    note: str
    successor: str | None
    logged_at: int
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


class OrdersCopy:
    """Questions to a copy of orders.db."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def epoch(self) -> EpochRow | None:
        """Give the current life of the log; None before the first."""
        row = self._connection.execute(_LIFE).fetchone()
        return EpochRow(*row) if row else None

    def position(self, partition: int) -> PositionRow | None:
        """Give how far a partition was read."""
        return next(map(PositionRow._make, self._rows(_POSITION, partition)), None)

    def end(self, epoch: int, partition: int) -> int:
        """Tell the offset behind the last row of any record."""
        (last,) = self._connection.execute(_LAST, {"epoch": epoch, "partition": partition}).fetchone()
        return 0 if last is None else int(last) + 1

    def history(self, epoch: int, partition: int) -> Iterator[tuple[Any, ...]]:
        """Give the rows of history, as `orderflow.audit.model.HistoryRow` has their columns."""
        return self._rows(_HISTORY + _IN_SEQUENCE, epoch, partition)

    def skips(self, epoch: int, partition: int) -> Iterator[SkipRow]:
        """Give the skipped messages."""
        return map(SkipRow._make, self._rows(_SKIPS + _IN_SEQUENCE, epoch, partition))

    def controls(self, epoch: int, partition: int) -> Iterator[ControlRow]:
        """Give the controls."""
        return map(ControlRow._make, self._rows(_CONTROLS + _IN_SEQUENCE, epoch, partition))

    def history_at(self, epoch: int, partition: int, offset: int) -> tuple[Any, ...] | None:
        """Give what stands at a place."""
        return next(self._rows(_HISTORY + _AT, epoch, partition, offset), None)

    def skip_at(self, epoch: int, partition: int, offset: int) -> SkipRow | None:
        """Give the skip at a place."""
        return next(map(SkipRow._make, self._rows(_SKIPS + _AT, epoch, partition, offset)), None)

    def older(self, epoch: int, partition: int, begin: int) -> Iterator[tuple[Any, ...]]:
        """Give what was applied from lives of the log that are gone, and from before the beginning of this one.

        In the sequence of places: epoch, offset, order id, event id, payload, time, outcome, reason. For an event id
        that a discard took, the last four are null.
        """
        for old in range(1, epoch + 1):
            end = begin if old == epoch else BEYOND - 1
            places = (self._rows(sql, old, partition, end) for sql in (_OLDER, _TAKEN))
            yield from heapq.merge(*places, key=itemgetter(1))

    def orders(self, partition: int) -> Iterator[OrderRow]:
        """Give the orders that were changed last from a partition."""
        return map(OrderRow._make, self._rows(_ORDERS + " WHERE last_partition = ?", partition))

    def order(self, order_id: str) -> OrderRow | None:
        """Give one order."""
        return next(map(OrderRow._make, self._rows(_ORDERS + " WHERE order_id = ?", order_id)), None)

    def orders_elsewhere(self, partitions: int) -> Iterator[OrderRow]:
        """Give the orders that were changed last from a partition which the topic does not have."""
        sql = _ORDERS + " WHERE last_partition NOT BETWEEN 0 AND ? - 1"
        return map(OrderRow._make, self._rows(sql, partitions))

    def nowhere(self, epoch: int, partitions: int) -> Iterator[tuple[str, int, int, int]]:
        """Give the rows that no log can have: of a life that has not begun, or of a partition that is none.

        The table, epoch, partition and offset.
        """
        return self._rows(_NOWHERE, epoch, partitions)

    def _rows(self, sql: str, *parameters: object) -> Iterator[Any]:
        cursor = self._connection.execute(sql, parameters)
        return chain.from_iterable(iter(lambda: cursor.fetchmany(AT_ONCE), []))


_LIFE = "SELECT epoch, topic, topic_id, opened_at FROM log_epochs ORDER BY epoch DESC LIMIT 1"

_POSITION = """
SELECT partition, epoch, next_offset, last_offset, last_checksum, last_event_id FROM positions WHERE partition = ?
"""

# Text as bytes where it is compared with a record's, and need not be decoded for that.

_HISTORY = """
SELECT offset, order_id, event_id, type, CAST(payload AS BLOB), logged_at, outcome, reason FROM history
"""

_SKIPS = """
SELECT offset, reason, key, value, CAST(headers AS BLOB), logged_at, placed, event_id, opened_by, state, repairs,
    order_id, reason = 'internal_error' OR trace IS NOT NULL
FROM skipped_messages
"""

_CONTROLS = """
SELECT offset, key, order_id, event_id, type, named_offset, if_last, operation, author, note, successor, logged_at,
    verdict, taken_event_id
FROM controls
"""

_ORDERS = """
SELECT order_id, customer_id, order_date, currency, CAST(items AS BLOB), total_minor, shipping_minor, status,
    last_epoch, last_partition, last_offset, updated_at
FROM orders
"""

_IN_SEQUENCE = "WHERE epoch = ? AND partition = ? ORDER BY offset"

_AT = "WHERE epoch = ? AND partition = ? AND offset = ?"

_LAST = """
SELECT max(offset) FROM (
    SELECT max(offset) AS offset FROM history WHERE epoch = :epoch AND partition = :partition
    UNION ALL SELECT max(offset) FROM skipped_messages WHERE epoch = :epoch AND partition = :partition
    UNION ALL SELECT max(offset) FROM controls WHERE epoch = :epoch AND partition = :partition
)
"""

_OLDER = """
SELECT epoch, offset, order_id, event_id, CAST(payload AS BLOB), logged_at, outcome, reason FROM history
WHERE epoch = ? AND partition = ? AND offset < ? AND order_id IS NOT NULL ORDER BY offset
"""

_TAKEN = """
SELECT epoch, offset, order_id, taken_event_id, NULL, NULL, NULL, NULL FROM controls
WHERE epoch = ? AND partition = ? AND offset < ? AND order_id IS NOT NULL AND taken_event_id IS NOT NULL
ORDER BY offset
"""

_NOWHERE = """
WITH places AS (
    SELECT 'history' AS source, epoch, partition, offset FROM history
    UNION ALL SELECT 'skipped_messages', epoch, partition, offset FROM skipped_messages
    UNION ALL SELECT 'controls', epoch, partition, offset FROM controls
    UNION ALL SELECT 'positions', epoch, partition, next_offset FROM positions
)
SELECT source, epoch, partition, offset FROM places
WHERE epoch NOT BETWEEN 1 AND ? OR partition NOT BETWEEN 0 AND ? - 1
"""
