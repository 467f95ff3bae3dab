"""Reads a log as the order consumer does, through a real file: cut into batches, interleaved, killed."""

from __future__ import annotations

import shutil
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import count, cycle, groupby
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import create_autospec, patch

import structlog
from hypothesis import event

from order_consumer.applying import Applier
from orderflow import controls, events
from orderflow.alerts import AlertBook
from orderflow.broker import Topic
from orderflow.broker.log_reader import Span
from orderflow.process import StopFlag
from orderflow.projection import Projection
from orderflow.rebuild import rebuild
from orderflow.records import UnreadableRecord
from orderflow.settings import Settings
from orderflow.store import writer as writers
from orderflow.store.sqlite import immediate
from orderflow.store.writer import Writer
from tests.support.healing.wire import UNAPPLICABLE, UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orderflow.records import Record
    from orderflow.store.differences import Differences
    from tests.support.healing.wishes import Turn

    Log = Sequence[Record | UnreadableRecord]
    Lives = Sequence[tuple[str, Log]]

#: So that an example ends.
KILLS_MAX = 6

ALERTS = create_autospec(AlertBook, instance=True)


class UnforeseenError(Exception):
    """A bug."""


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def bugs() -> Iterator[None]:
    """Raise an error in the decoder, or behind it, where a value asks for one."""
    decode_text, project = events.decode_text, Projection.project

    def decode(text: str) -> events.Event:
        if UNDECODABLE in text:
            raise UnforeseenError(UNDECODABLE)
        return decode_text(text)

    def projected(self: Projection, records: Sequence[Record]) -> Any:
        if any(UNAPPLICABLE.encode() in (record.value or b"") for record in records):
            raise UnforeseenError(UNAPPLICABLE)
        return project(self, records)

    with ExitStack() as stack:
        for module in (events, controls):
            stack.enter_context(patch.object(module, "decode_text", decode))
        stack.enter_context(patch.object(Projection, "project", projected))
        stack.enter_context(structlog.testing.capture_logs())
        yield


@contextmanager
def killed_in(transaction: int) -> Iterator[None]:
    """Kill the process before it commits the transaction of this number; where there are fewer, behind the last."""
    numbers = count()

    @contextmanager
    def cut_short(connection: Any) -> Iterator[None]:
        if next(numbers) < transaction:
            with immediate(connection):
                yield
            return
        connection.execute("PRAGMA cache_size = 1")  # What is not committed is in the file all the same.
        connection.execute("BEGIN IMMEDIATE")
        yield
        raise Killed

    with patch.object(writers, "immediate", cut_short):
        yield
    raise Killed


class Process:
    """What lives in memory between two kills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(var_dir=str(folder))
        self.writer = Writer(self.settings)
        self.writer._connection.execute("PRAGMA synchronous = OFF")  # A killed process is meant, no power cut.
        self._applier = Applier(self.settings, self.writer, ALERTS, StopFlag(), lambda *_: None)

    def read(self, topic_id: str, log: Log, turns: Iterator[Turn]) -> None:
        """Read the log from the stored positions to its end."""
        current = self.writer.epoch()
        assert current is not None
        projection = Projection(self.writer, topic_id, current[0])
        for batch, turn in self._batches(log, turns):
            with killed_in(turn.transaction) if turn.then == "kill" else ExitStack():
                self._apply(projection, batch)

    def _apply(self, projection: Projection, batch: list[Any]) -> None:
        for unreadable, part in groupby(batch, key=lambda one: isinstance(one, UnreadableRecord)):
            if unreadable:
                self._applier.write(projection.skip_unreadable(part, 3))
            else:
                self._applier.apply(projection, list(part))

    def _batches(self, log: Log, turns: Iterator[Turn]) -> Iterator[tuple[list[Any], Turn]]:
        starts = {partition: position.next_offset for partition, position in self.writer.positions().items()}
        left: dict[int, list[Any]] = defaultdict(list)
        for record in reversed(log):
            if record.offset >= starts.get(record.partition, 0):
                left[record.partition].append(record)
        batch: list[Any] = []
        while any(left.values()):
            turn = next(turns)
            queues = [queue for _, queue in sorted(left.items()) if queue]
            batch.append(queues[turn.partition % len(queues)].pop())
            if turn.then != "read on" or not any(left.values()):
                yield batch, turn
                batch = []

    def after_a_kill(self) -> Process:
        """Start again with the files as they are on disk, which this process leaves without closing them."""
        folder = self.folder.with_name(f"{self.folder.name}+")
        folder.mkdir()
        for path in self.folder.glob("orders.db*"):
            if not path.name.endswith("-shm"):  # The next one to open the file makes it anew.
                shutil.copy(path, folder)
        self.writer.close()
        return Process(folder)


def applied(folder: Path, lives: Lives, turns: Sequence[Turn]) -> Settings:
    """Apply every life of the log to a new file."""
    left, kills = cycle(turns), 0
    process = Process(folder)
    with bugs():
        for topic_id, log in lives:
            process.writer.open_epoch(Topic("order_events", topic_id, 6), "test")
            while True:
                try:
                    process.read(topic_id, log, left)
                    break
                except Killed:
                    process = process.after_a_kill()
                    kills += 1
                    event("killed")
                if kills == KILLS_MAX:
                    left = cycle([turn._replace(then="write") for turn in turns])
    process.writer.close()
    return process.settings


def rebuilt(settings: Settings, topic_id: str, log: Log, begin: int = 0) -> Differences:
    """Rebuild the last life as `orderflow rebuild` does, swap, and give what it says will differ. Nothing raises.

    What is before the offset ``begin`` is not in the log any more.
    """

    class Reader:
        """The log, as the rebuild reads it."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def spans(self) -> dict[int, Span]:
            ends = {record.partition: record.offset + 1 for record in log}
            return {number: Span(min(begin, ends.get(number, 0)), ends.get(number, 0)) for number in range(6)}

        def read(self, partition: int, start: int, end: int) -> Iterator[Any]:
            return (record for record in log if record.partition == partition and start <= record.offset < end)

    with ExitStack() as stack:
        stack.enter_context(patch.object(rebuild, "LogReader", Reader))
        stack.enter_context(patch.object(rebuild, "find_topic", lambda *_: Topic("order_events", topic_id, 6)))
        building = stack.enter_context(rebuild.Rebuild(settings))
        building.fold(lambda *_: None)
        differences = building.differences()
        building.swap()
    return differences
