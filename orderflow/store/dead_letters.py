"""Skipped messages in the sequence in which they became skips, and how far they were copied to the dead-letter topic.

The first is read from orders.db, the second is kept in outbox.db: it is true nowhere else, and a projection that is
built anew yields the same sequence. Of each partition the sequence is that of (opened_by, offset): what became a skip
later, for the first time or again by a repair, is behind all that were there.

The sequence is another one when the log was cut, and orders.db was lost after that: a new file counts epochs from 1
again, and means the log behind the cut. So the marks know each epoch that there was, and are compared with the file's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow.errors import StoreIncompatible, StoreUnavailable
from orderflow.store.outbox_file import OutboxFile
from orderflow.store.reader import Reader
from orderflow.store.rows import SkippedRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orderflow.settings import Settings
    from orderflow.store.sqlite import Connection


class Stretch(NamedTuple):
    """One partition in one life of one topic: its skips are one sequence."""

    topic_id: str
    epoch: int
    partition: int


class Mark(NamedTuple):
    """A skip's place in that sequence."""

    opened_by: int
    offset: int


#: In front of all.
START = Mark(-1, -1)


class DeadLetter(NamedTuple):
    """A skip, and the topic that it was on."""

    topic: str
    stretch: Stretch
    skip: SkippedRow

    @property
    def mark(self) -> Mark:
        """Where it is in the sequence."""
        return Mark(self.skip.opened_by, self.skip.offset)


class Limits(NamedTuple):
    """How many are given of a partition at a time: so many, and one that goes beyond the bytes is the last."""

    messages: int
    bytes: int


class DeadLetters:
    """What is to be copied. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Reader(settings)

    def behind(self, marks: Mapping[Stretch, Mark], partitions: Iterable[int], limits: Limits) -> list[DeadLetter]:
        """Give the next of each partition behind the marks, in sequence. None while there is no projection to read."""
        try:
            with self._reader.snapshot() as connection:
                epochs = connection.execute("SELECT topic, topic_id, epoch FROM log_epochs ORDER BY epoch").fetchall()
                found = (_first_of(connection, epochs, partition, marks, limits) for partition in partitions)
                return [letter for letters in found for letter in letters]
        except (StoreUnavailable, StoreIncompatible):
            return []

    def epochs(self) -> dict[str, int]:
        """Give the last epoch of each topic id. None while there is no projection to read."""
        try:
            return dict(self._reader.query("SELECT topic_id, max(epoch) FROM log_epochs GROUP BY topic_id"))
        except (StoreUnavailable, StoreIncompatible):
            return {}


class DeadLetterMarks:
    """The last skip of each stretch that was copied. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._file = OutboxFile(settings)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def all(self) -> dict[Stretch, Mark]:
        """Give all.

        Raises:
            StoreUnavailable: they cannot be read.

        """
        rows = self._file.query("SELECT topic_id, epoch, partition, opened_by, offset FROM dead_letters")
        return {Stretch(*row[:3]): Mark(*row[3:]) for row in rows}

    def forget(self, topic_id: str) -> None:
        """Forget those of a topic: all its skips are copied again.

        Raises:
            StoreError: nobody knows whether they are forgotten.

        """
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM dead_letters WHERE topic_id = ?", (topic_id,))

    def move(self, marks: Mapping[Stretch, Mark]) -> None:
        """Take note of how far some were copied.

        Raises:
            StoreError: nobody knows whether that is noted.

        """
        with self._file.transaction() as connection:
            connection.executemany(_MOVE, [(*stretch, *mark) for stretch, mark in marks.items()])


_MOVE = """
INSERT OR REPLACE INTO dead_letters (topic_id, epoch, partition, opened_by, offset) VALUES (?, ?, ?, ?, ?)
"""

_BEHIND = "FROM skipped_messages WHERE epoch = ? AND partition = ? AND (opened_by, offset) > (?, ?)"

#: SQLite tells the length of a value without reading it.
_SIZES = f"""
SELECT opened_by, offset, coalesce(length(key), 0) + coalesce(length(value), 0) + length(headers) {_BEHIND}
ORDER BY opened_by, offset LIMIT ?
"""

_ROWS = f"""
SELECT {", ".join(SkippedRow._fields)} {_BEHIND} AND (opened_by, offset) <= (?, ?) ORDER BY opened_by, offset
"""


def _first_of(
    connection: Connection,
    epochs: Sequence[tuple[str, str, int]],
    partition: int,
    marks: Mapping[Stretch, Mark],
    limits: Limits,
) -> list[DeadLetter]:
    """Give the next of the first epoch in which a partition has some."""
    for topic, topic_id, epoch in epochs:
        stretch = Stretch(topic_id, epoch, partition)
        skips = _next(connection, stretch, marks.get(stretch, START), limits)
        if skips:
            return [DeadLetter(topic, stretch, skip) for skip in skips]
    return []


def _next(connection: Connection, stretch: Stretch, mark: Mark, limits: Limits) -> list[SkippedRow]:
    """Give what is behind a mark. Large messages are not read before it is known how many of them are wanted."""
    place = (stretch.epoch, stretch.partition, *mark)
    last, size = None, 0
    for opened_by, offset, length in connection.execute(_SIZES, (*place, limits.messages)).fetchall():
        last, size = Mark(opened_by, offset), size + length
        if size >= limits.bytes:
            break
    if last is None:
        return []
    return [SkippedRow(*row) for row in connection.execute(_ROWS, (*place, *last)).fetchall()]
