"""What callers were told, beside the topic and the outbox: a line a call, as `orderflow load --ledger` writes it.

A ledger may be as long as the topic, so it is kept in a file of this process, and read partition by partition.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from orderflow.audit.differences import Findings, Kind, difference
from orderflow.audit.keys import partition_of
from orderflow.audit.places import Ordered
from orderflow.audit.rows import AT_ONCE
from orderflow.audit.wire import Changed, Created, read
from orderflow.errors import OrderflowError
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    import sqlite3
    from collections import Counter
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orderflow.audit.model import Expected
    from orderflow.audit.outbox import OutboxCopy
    from orderflow.audit.partition import Partition
    from orderflow.audit.rows import EpochRow
    from orderflow.records import Record

#: Lines that are written at a time.
LINES = 5_000


class Line(msgspec.Struct, frozen=True, gc=False):
    """What the audit reads of a line. Times are seconds since 1970."""

    outcome: str
    order_id: str | None = None
    event_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    answered_at: float = 0.0


class Promise(NamedTuple):
    """A caller was told that an event is at a place; without ids it was any message."""

    offset: int
    order_id: str | None
    event_id: str | None
    answered_at: float


class Ledger:
    """All lines of a ledger."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fill(self, path: Path) -> int:
        """Read a ledger, and tell how many lines it has; a last one that was cut short is left out.

        Raises:
            OrderflowError: it cannot be read, or a line is none of a ledger.

        """
        count = 0
        try:
            with path.open("rb") as file:
                lines = (line for line in file if line.endswith(b"\n"))
                while chunk := [_row(path, number, line) for number, line in _numbered(lines, count, LINES)]:
                    self._connection.execute("BEGIN")
                    self._connection.executemany("INSERT INTO told VALUES (?, ?, ?, ?, ?, ?)", chunk)
                    self._connection.execute("COMMIT")
                    count += len(chunk)
        except OSError as error:
            raise OrderflowError(f"the ledger {path} cannot be read: {error.strerror}") from error
        self._connection.execute("CREATE INDEX told_by_event ON told (event_id) WHERE event_id IS NOT NULL")
        return count

    def published(self, partition: int) -> Iterator[Promise]:
        """Give what was told to be on a partition, in the sequence of offsets."""
        return map(Promise._make, self._rows(_PUBLISHED, partition))

    def others(self, partition: int) -> Iterator[tuple[str, str, str]]:
        """Give what was told of other events that belong on a partition: order id, event id, outcome."""
        return self._rows(_OTHERS, partition)

    def said_otherwise(self, order_id: str, event_id: str) -> bool:
        """Tell whether a refused event was sent again, and that attempt ended in another way."""
        return next(self._rows(_OTHERWISE, order_id, event_id), None) is not None

    def _rows(self, sql: str, *parameters: object) -> Iterator[Any]:
        cursor = self._connection.execute(sql, parameters)
        return chain.from_iterable(iter(lambda: cursor.fetchmany(AT_ONCE), []))


#: The table of the file that a ledger is kept in.
TABLE = "CREATE TABLE told (outcome TEXT, order_id TEXT, event_id TEXT, partition INTEGER, offset INTEGER, at REAL)"

_PUBLISHED = """
SELECT offset, order_id, event_id, at FROM told
WHERE outcome = 'published' AND partition = ? AND offset IS NOT NULL ORDER BY offset
"""

_OTHERS = """
SELECT order_id, event_id, outcome FROM told
WHERE outcome IN ('spooled', 'refused') AND partition = ? AND event_id IS NOT NULL
"""

_OTHERWISE = """
SELECT 1 FROM told WHERE order_id = ? AND event_id = ? AND outcome NOT IN ('refused', 'invalid')
"""


def _numbered(lines: Iterable[bytes], before: int, count: int) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, start=before + 1):
        yield number, line
        if number == before + count:
            return


def _row(path: Path, number: int, line: bytes) -> tuple[object, ...]:
    try:
        told = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OrderflowError(f"line {number} of {path} is no entry of a ledger: {error}") from error
    partition = told.partition
    if partition is None and told.order_id is not None:
        partition = partition_of(told.order_id.encode())
    return told.outcome, told.order_id, told.event_id, partition, told.offset, told.answered_at


_decoder = msgspec.json.Decoder(Line)


class LedgerWitness:
    """Looks for what callers were told to be on a partition."""

    def __init__(
        self, told: tuple[Ledger, OutboxCopy, Counter[str]], partition: Partition, life: EpochRow, findings: Findings
    ) -> None:
        self._ledger, self._outbox, self._counts = told
        self._partition = partition
        self._life = life
        self._findings = findings
        self._rows = Ordered(self._ledger.published(partition.number))
        self._missed: list[tuple[Promise, str]] = []
        self._behind: set[tuple[str, str]] = set()
        self.offset = self._rows.offset

    def see(self, record: Record | UnreadableRecord, expected: Expected) -> None:
        """Compare what was told of places up to a record's."""
        order_id = expected.order.order_id if expected.order else None
        self._compare(record, order_id, expected.event_id)

    def see_behind(self, record: Record | UnreadableRecord) -> None:
        """Take note of a record behind the copy: that it is there is all that is asked of it."""
        said = None if isinstance(record, UnreadableRecord) else read(record.value)
        order_id = event_id = None
        if isinstance(said, Created | Changed):
            order_id, event_id = said.order_id, said.event_id
        if order_id is not None and event_id is not None:
            self._behind.add((order_id, event_id))
        if self.offset <= record.offset:
            self._compare(record, order_id, event_id)

    def _compare(self, record: Record | UnreadableRecord, order_id: str | None, event_id: str | None) -> None:
        while self._rows.offset <= record.offset:
            promise = self._rows.take()
            assert promise is not None  # noqa: S101 (there is one up to that offset)
            if promise.offset < record.offset:
                self._missed.append((promise, "nothing is there"))
            elif promise.event_id is not None and (promise.order_id, promise.event_id) != (order_id, event_id):
                what = "a record that cannot be read" if isinstance(record, UnreadableRecord) else f"event {event_id}"
                self._missed.append((promise, f"{what} is there"))
        self.offset = self._rows.offset

    def finish(self) -> None:
        """Settle what was not at its place, what was spooled, and what was refused."""
        while self._rows.row is not None:
            self._missed.append((self._rows.row, "the log ends before it"))
            self._rows.take()
        for promise, found in self._missed:
            self._missing(promise, found)
        for order_id, event_id, outcome in self._ledger.others(self._partition.number):
            there = self._is_there(order_id, event_id)
            if outcome == "refused" and there:
                self._appeared(order_id, event_id)
            elif outcome == "spooled" and not there:
                self._not_there("spooled", order_id, event_id)

    def _is_there(self, order_id: str, event_id: str) -> bool:
        """Tell whether an event is anywhere on the partition of its order."""
        if (order_id, event_id) in self._behind:
            return True
        model = self._partition.model
        history = model.orders.get(order_id.encode())
        return history is not None and history.has(event_id) and (order_id, event_id) not in model.absent

    def _missing(self, promise: Promise, found: str) -> None:
        """Tell of an event that is not where it was told to be."""
        order_id, event_id = promise.order_id, promise.event_id
        older = self._life.epoch > 1 and promise.answered_at * 1000 < self._life.opened_at
        place = self._partition.place_id(promise.offset)
        if order_id is None or event_id is None:
            if older:
                self._counts["told of an older log"] += 1
            else:
                self._findings.add(difference(Kind.TOLD_LOST, None, place, "published: a message", found))
        elif not self._is_there(order_id, event_id):
            self._not_there("published", order_id, event_id, place, found)
        elif older:
            self._counts["told of an older log"] += 1
        else:
            said = f"published: event {event_id}"
            self._findings.add(difference(Kind.TOLD_ELSEWHERE, order_id, place, said, found))

    def _not_there(self, outcome: str, order_id: str, event_id: str, place: str | None = None, found: str = "") -> None:
        """Tell of an event that is not on the topic, unless it is known where it is."""
        states = self._outbox.states(order_id, event_id) if outcome == "spooled" else set()
        if states & {"waiting", "held"}:
            self._counts["waits in the outbox"] += 1
        elif (order_id, event_id) in self._partition.model.absent:
            self._counts["lost from the log, kept in orders.db"] += 1
        elif "discarded" in states:
            self._counts["spooled, and discarded by a person"] += 1
        else:
            where = f"{found}; " if found else ""
            nowhere = "neither on the topic nor in the outbox"
            said = f"{outcome}: event {event_id}"
            self._findings.add(difference(Kind.TOLD_LOST, order_id, place, said, f"{where}{nowhere}"))

    def _appeared(self, order_id: str, event_id: str) -> None:
        if not self._ledger.said_otherwise(order_id, event_id):
            said = f"refused: event {event_id}"
            self._findings.add(difference(Kind.REFUSED_APPEARED, order_id, None, said, "it is on the topic"))
