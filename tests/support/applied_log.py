"""A log without a broker: what is laid on it is applied at once, by the real projection and to a real file."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from orderflow.broker import Topic, partition_of
from orderflow.clock import now_ms
from orderflow.headers import NO_HEADERS, to_bytes
from orderflow.projection import Projection, runs
from orderflow.records import Record, UnreadableRecord
from orderflow.store.outbox import Outbox
from orderflow.store.rows import place_id
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    from orderflow.settings import Settings


class AppliedLog:
    """The log and its reader. `relay` takes what is in the outbox to the log, as the relay does."""

    def __init__(self, settings: Settings, topic_id: str = "topic-1") -> None:
        self.settings = settings
        self.writer = Writer(settings)
        self.begin(topic_id)

    def begin(self, topic_id: str) -> None:
        """Begin a new life of the topic."""
        self.topic_id = topic_id
        self.epoch = self.writer.open_epoch(Topic(self.settings.topic, topic_id, 6), "test")
        self._ends: dict[int, int] = defaultdict(int)

    def lay(
        self, key: bytes | None, value: bytes | None, partition: int | None = None, header_bytes: bytes = NO_HEADERS
    ) -> str:
        """Lay a record at the end of its partition, and apply it; give the name of its place."""
        record = self._next(key, value, partition, header_bytes)
        (run,) = runs([record])
        self.writer.write(self._projection.project(run).batch)
        return place_id((self.epoch, record.partition, record.offset))

    def lay_before_a_bug(self, key: bytes, value: bytes) -> str:
        """Lay a record whose projection raises an error that nobody foresaw."""
        record = self._next(key, value)
        self.writer.write(self._projection.skip_unforeseen(record, ZeroDivisionError("a bug")).batch)
        return place_id((self.epoch, record.partition, record.offset))

    def lay_unreadable(self, partition: int) -> str:
        """Lay a record whose batch cannot be read."""
        record = self._next(None, None, partition)
        lost = UnreadableRecord(partition, record.offset, "CorruptRecordError: a checksum")
        self.writer.write(self._projection.skip_unreadable([lost], 3).batch)
        return place_id((self.epoch, partition, record.offset))

    @property
    def _projection(self) -> Projection:
        return Projection(self.writer, self.topic_id, self.epoch)

    def _next(
        self, key: bytes | None, value: bytes | None, partition: int | None = None, header_bytes: bytes = NO_HEADERS
    ) -> Record:
        at = partition if partition is not None else partition_of(key or b"")
        self._ends[at] += 1
        return Record(at, self._ends[at] - 1, key, value, header_bytes, now_ms())

    def relay(self) -> list[str]:
        """Deliver all that waits; give the places."""
        outbox, places = Outbox(self.settings), []
        while entries := outbox.deliverable(100):
            for entry in entries:
                message = entry.message()
                places.append(self.lay(message.key, message.value, message.partition, to_bytes(message.headers)))
                _, partition, offset = map(int, places[-1].split("-"))
                outbox.settle(delivered=[(entry.seq, partition, offset)])
        outbox.close()
        return places
