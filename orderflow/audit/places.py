"""The rows of a partition's records, the three tables in step: what is written of each place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from orderflow.headers import NO_HEADERS
from orderflow.records import Record, UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.audit.rows import ControlRow, OrdersCopy, SkipRow

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


class Written(NamedTuple):
    """What is written of a record. It says for itself what the record was, where that cannot be read any more."""

    history: tuple[Any, ...] | None = None
    skip: SkipRow | None = None
    control: ControlRow | None = None

    @property
    def was_read(self) -> bool:
        """The record could be read when it was applied: a skip that could not be has no time."""
        read = self.skip is not None and self.skip.logged_at is not None
        return read or self.history is not None or self.control is not None

    def remembered(self, record: UnreadableRecord) -> Record | UnreadableRecord:
        """Give the record as it was, but for its headers; of a control too little is kept."""
        partition, offset, skip, row = record.partition, record.offset, self.skip, self.history
        if skip is not None and skip.logged_at is not None:
            damage = "a name of a header" if skip.reason == "unreadable_record" else None
            return Record(partition, offset, skip.key, skip.value, NO_HEADERS, skip.logged_at, damage)
        if row is not None and row[1] is not None:
            return Record(partition, offset, row[1].encode(), row[4], NO_HEADERS, row[5])
        return record


class Rows:
    """The rows of all three tables. ``offset`` of each is where its next row is."""

    def __init__(self, copy: OrdersCopy, epoch: int, partition: int) -> None:
        self.history = Ordered(copy.history(epoch, partition))
        self.skips = Ordered(copy.skips(epoch, partition))
        self.controls = Ordered(copy.controls(epoch, partition))

    def before(self, offset: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Take the rows in front of an offset: each with its table."""
        tables: tuple[tuple[str, Ordered[Any]], ...] = (
            ("history", self.history),
            ("skipped_messages", self.skips),
            ("controls", self.controls),
        )
        for table, rows in tables:
            while rows.offset < offset:
                row = rows.take()
                if row is not None:
                    yield table, row
