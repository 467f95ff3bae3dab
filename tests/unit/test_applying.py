"""A store in trouble holds a batch up, and costs no record of it; nor does a stop in its midst."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from order_consumer.applying import Applier, Stopped
from orderflow.alerts import AlertBook
from orderflow.broker import Topic, partition_of
from orderflow.controls import Discarded, encode
from orderflow.headers import NO_HEADERS
from orderflow.process import StopFlag
from orderflow.projection import Projection
from orderflow.records import Record, UnreadableRecord
from orderflow.settings import Settings
from orderflow.store.writer import Writer
from tests.support import store
from tests.unit.test_projection import CommitsThenFails, changed, created, uuid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.process import State
    from orderflow.records import Position
    from orderflow.store.rows import Batch

TOPIC = Topic("order_events", "topic-id", 6)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path), wait_first_delay_s=0.001)


@pytest.fixture
def alerts(settings: Settings) -> Iterator[AlertBook]:
    book = AlertBook(settings, "x")
    yield book
    book.close()


def applier_of(settings: Settings, writer: Writer, alerts: AlertBook) -> Applier:
    return Applier(settings, writer, alerts, StopFlag(), lambda _, __: None)


def projection_of(writer: Writer) -> Projection:
    return Projection(writer, TOPIC.topic_id, writer.open_epoch(TOPIC, "test"))


def record_at(offset: int, value: bytes) -> Record:
    return Record(partition_of(b"a"), offset, b"a", value, NO_HEADERS, 0)


def discard_of(offset: int, at: int) -> Record:
    control = Discarded(
        event_id=uuid(at), topic_id=TOPIC.topic_id, partition=partition_of(b"a"), offset=offset, author="m"
    )
    return record_at(at, encode(control))


def full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


class TakesNothing(Writer):
    """For so many uses neither writes nor reads."""

    uses = 5

    def _fail(self) -> None:
        self.uses -= 1
        if self.uses >= 0:
            raise full()

    def write(self, batch: Batch) -> None:
        self._fail()
        super().write(batch)

    def positions(self) -> dict[int, Position]:
        self._fail()
        return super().positions()


def test_a_store_that_cannot_even_be_read_is_waited_for(settings: Settings, alerts: AlertBook) -> None:
    """Looking for what is stored may fail, too, before the next attempt; that is no error of the record's."""
    writer = TakesNothing(settings)
    projection = projection_of(writer)
    record = record_at(0, changed("a", 1, "new"))
    applier = applier_of(settings, writer, alerts)

    with structlog.testing.capture_logs() as lines:
        applier.apply(projection, [record])

    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["store.retry_scheduled"] * 5
    assert applier.counts["skipped.internal_error"] == 0
    assert applier.counts["skipped.unknown_order"] == 1
    assert applier.positions[record.partition].next_offset == 1


def test_a_stop_takes_effect_between_two_controls_and_the_rest_is_read_again(
    settings: Settings, alerts: AlertBook
) -> None:
    """Each may read an order's whole history, so a full batch takes minutes. The heartbeat stays fresh meanwhile."""
    writer = Writer(settings)
    projection = projection_of(writer)
    stop, beats = StopFlag(), list[str]()

    def beat(state: State, _: str | None) -> None:
        beats.append(state)
        if len(beats) == 3:
            stop.set()

    applier = Applier(settings, writer, alerts, stop, beat)
    applier.apply(projection, [record_at(offset, b"{") for offset in range(10)])
    batch = [discard_of(offset, at=10 + offset) for offset in range(10)]

    with pytest.raises(Stopped):
        applier.apply(projection, batch)
    applied = applier.positions[batch[0].partition].next_offset - 10
    applier_of(settings, writer, alerts).apply(projection, batch[applied:])

    assert (beats, applied) == (["running"] * 3, 4)
    assert store.query(settings, "SELECT state, count(*) FROM skipped_messages GROUP BY 1") == [("discarded", 10)]
    assert store.query(settings, "SELECT verdict, count(*) FROM controls GROUP BY 1") == [("accepted", 10)]


def test_a_skip_whose_commit_failed_after_it_took_effect_is_not_made_twice(
    settings: Settings, alerts: AlertBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record with a bug, and one that cannot be read: the row is there, so nothing is written and nothing raised."""
    writer = CommitsThenFails(settings)
    projection = projection_of(writer)
    monkeypatch.setattr(projection, "project", lambda _: 1 / 0)
    applier = applier_of(settings, writer, alerts)

    applier.apply(projection, [record_at(0, created("a", 1))])
    writer.failures = 1
    applier.write(projection.skip_unreadable([UnreadableRecord(partition_of(b"a"), 1, "a checksum")], 3))

    rows = store.query(settings, "SELECT offset, reason, trace IS NULL FROM skipped_messages ORDER BY offset")
    assert rows == [(0, "internal_error", 0), (1, "unreadable_record", 1)]
    assert applier.counts["skipped.internal_error"] == applier.counts["skipped.unreadable_record"] == 1
    assert applier.positions == writer.positions()


def test_a_batch_that_took_effect_in_spite_of_an_error_is_told(settings: Settings, alerts: AlertBook) -> None:
    writer = CommitsThenFails(settings)
    projection = projection_of(writer)
    applier = applier_of(settings, writer, alerts)

    with structlog.testing.capture_logs() as lines:
        applier.apply(projection, [record_at(0, created("a", 1))])

    assert [line["event"] for line in lines] == ["store.retry_scheduled", "order.event_applied"]
    assert applier.counts["applied"] == 1


class OutOfMemory(Writer):
    """Has no memory for a while, as sqlite3 says it."""

    failures = 2

    def write(self, batch: Batch) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise MemoryError
        super().write(batch)


def test_want_of_memory_is_waited_for_and_costs_no_record(settings: Settings, alerts: AlertBook) -> None:
    writer = OutOfMemory(settings)
    projection = projection_of(writer)
    applier = applier_of(settings, writer, alerts)

    applier.apply(projection, [record_at(0, created("a", 1))])

    assert applier.counts["applied"] == 1
    assert applier.counts["skipped.internal_error"] == 0


def test_a_wal_that_cannot_be_looked_at_does_not_undo_the_batch(
    settings: Settings, alerts: AlertBook, tmp_path: Path
) -> None:
    """It comes behind the commit: the batch is told as any other, and reading goes on behind it."""
    writer = Writer(settings)
    projection = projection_of(writer)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    writer._wal = loop
    applier = applier_of(settings, writer, alerts)

    applier.apply(projection, [record_at(0, created("a", 1))])

    assert applier.counts["applied"] == 1
    assert applier.positions == writer.positions()
