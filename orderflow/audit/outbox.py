"""The outbox beside the topic: what it says is delivered must be there; what waits is told as a fact."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow.audit.differences import Findings, Kind, difference
from orderflow.audit.places import Ordered
from orderflow.audit.rows import AT_ONCE
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    import sqlite3
    from collections import Counter
    from collections.abc import Iterator

    from orderflow.audit.model import Expected
    from orderflow.audit.partition import Partition
    from orderflow.audit.rows import EpochRow
    from orderflow.records import Record


class Delivered(NamedTuple):
    """An event that the outbox says is on the topic."""

    offset: int
    seq: int
    order_id: str
    event_id: str
    key: bytes | None
    value: bytes
    settled_at: int


class OutboxCopy:
    """Questions to a copy of outbox.db; without one, there is nothing in it."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def counts(self) -> dict[str, int]:
        """Tell how much is in each state."""
        return dict(self._all("SELECT state, count(*) FROM outbox GROUP BY state"))

    def delivered(self, partition: int) -> Iterator[Delivered]:
        """Give what was delivered to a partition, in the sequence of offsets."""
        if self._connection is None:
            return iter(())
        cursor = self._connection.execute(_DELIVERED, (partition,))
        return map(Delivered._make, chain.from_iterable(iter(lambda: cursor.fetchmany(AT_ONCE), [])))

    def states(self, order_id: str, event_id: str) -> set[str]:
        """Tell the states of an event; it may have been discarded and taken again."""
        sql = "SELECT state FROM outbox WHERE order_id = ? AND event_id = ?"
        return {state for (state,) in self._all(sql, order_id, event_id)}

    def _all(self, sql: str, *parameters: object) -> list[Any]:
        return [] if self._connection is None else self._connection.execute(sql, parameters).fetchall()


_DELIVERED = """
SELECT offset, seq, order_id, event_id, key, value, settled_at FROM outbox
WHERE state = 'delivered' AND partition = ? ORDER BY offset
"""


class OutboxWitness:
    """Looks for what was delivered to a partition."""

    def __init__(
        self, outbox: OutboxCopy, partition: Partition, life: EpochRow, findings: Findings, counts: Counter[str]
    ) -> None:
        self._rows = Ordered(outbox.delivered(partition.number))
        self._partition = partition
        self._life = life
        self._findings = findings
        self._counts = counts
        self.offset = self._rows.offset

    def see(self, record: Record | UnreadableRecord, expected: Expected) -> None:
        """Compare the rows up to a record."""
        del expected
        while self._rows.offset <= record.offset:
            row = self._take()
            if row.offset < record.offset:
                self._in_vain(row, "nothing")
            elif isinstance(record, UnreadableRecord):
                self._in_vain(row, "a record that cannot be read")
            elif (record.key, record.value) != (row.key, row.value):
                self._in_vain(row, "another record")
            else:
                self._counts["delivered, and there"] += 1

    def finish(self, end: int, log_end: int) -> None:
        """Settle what is left: from ``end`` on nobody has looked, and from ``log_end`` on there is nothing."""
        while self._rows.row is not None:
            row = self._take()
            if row.offset < end or row.offset >= log_end:
                self._in_vain(row, "nothing")
            else:
                self._counts["delivered behind the copy"] += 1

    def _take(self) -> Delivered:
        row = self._rows.take()
        assert row is not None  # noqa: S101 (callers have looked)
        self.offset = self._rows.offset
        return row

    def _in_vain(self, row: Delivered, found: str) -> None:
        if self._life.epoch > 1 and row.settled_at < self._life.opened_at:
            self._counts["delivered to an older log"] += 1
            return
        place = self._partition.place_id(row.offset)
        said = f"the event {row.event_id} (outbox {row.seq})"
        self._findings.add(difference(Kind.DELIVERED_IN_VAIN, row.order_id or None, place, said, found))
