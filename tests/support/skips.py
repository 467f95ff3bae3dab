"""Rows of skipped messages, put into a projection without a consumer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from orderflow.store import sqlite
from orderflow.store.rows import SkippedRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.settings import Settings

TOPIC_ID = "7f0c3b1e-52a5-4c0f-8d5e-3f2e9b1c6a77"


def skip(offset: int, partition: int = 0, epoch: int = 1, opened_by: int | None = None, **more: Any) -> SkippedRow:
    """A skip at a place, by default one that never was anything else."""
    row = SkippedRow(
        epoch, partition, offset, "malformed_json", "The value is not JSON.", b"key", b"value-%d" % offset, "[]",
        1_700_000_000_000 + offset, None, 0, None, None, 1, None, None, offset if opened_by is None else opened_by,
    )  # fmt: skip
    return row._replace(**more)


def put(settings: Settings, rows: Iterable[SkippedRow], topic_ids: Iterable[str] = (TOPIC_ID,)) -> None:
    """Put rows into the projection, and make it where it is not there; of each topic id an epoch."""
    with closing(sqlite.open_writer(settings.orders_db, busy_timeout_s=5)) as connection, sqlite.immediate(connection):
        connection.executemany(
            "INSERT OR IGNORE INTO log_epochs (epoch, topic, topic_id, opened_at, reason) VALUES (?, ?, ?, 0, 'first')",
            [(epoch, settings.topic, topic_id) for epoch, topic_id in enumerate(topic_ids, start=1)],
        )
        marks = ", ".join("?" * len(SkippedRow._fields))
        connection.executemany(
            f"INSERT OR REPLACE INTO skipped_messages ({', '.join(SkippedRow._fields)}) VALUES ({marks})", rows
        )
