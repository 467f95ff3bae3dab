"""A store in trouble holds a batch up, and costs no record of it."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import structlog.testing

from order_consumer.applying import Applier
from orderflow.alerts import AlertBook
from orderflow.broker import Topic, partition_of
from orderflow.headers import NO_HEADERS
from orderflow.process import StopFlag
from orderflow.projection import Projection
from orderflow.records import Record
from orderflow.settings import Settings
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.records import Position
    from orderflow.store.rows import Batch

TOPIC = Topic("order_events", "topic-id", 6)


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


def test_a_store_that_cannot_even_be_read_is_waited_for(tmp_path: Path) -> None:
    """Looking for what is stored may fail, too, before the next attempt; that is no error of the record's."""
    settings = Settings(var_dir=str(tmp_path), wait_first_delay_s=0.001)
    writer = TakesNothing(settings)
    projection = Projection(writer, TOPIC.topic_id, writer.open_epoch(TOPIC, "test"))
    value = json.dumps({"type": "order.status_changed", "order_id": "a", "status": "new"}).encode()
    record = Record(partition_of(b"a"), 0, b"a", value, NO_HEADERS, 0)
    applier = Applier(settings, writer, AlertBook(settings, "x"), StopFlag(), lambda _, __: None)

    with structlog.testing.capture_logs() as lines:
        applier.apply(projection, [record])

    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["store.retry_scheduled"] * 5
    assert applier.counts["skipped.internal_error"] == 0
    assert applier.counts["skipped.unknown_order"] == 1
    assert applier.positions[record.partition].next_offset == 1
