"""The projection's tables, read by SQLite alone. A second witness beside ledger and topic, never the only one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from tests.support.topic import Place


class HistoryRow(NamedTuple):
    order_id: str | None
    event_id: str
    outcome: str
    reason: str | None


def query(settings: Settings, sql: str) -> list[Any]:
    """Run a query on the projection, which the worker may be writing."""
    with closing(sqlite3.connect(f"file:{settings.orders_db}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


def positions(settings: Settings) -> dict[int, int]:
    """The next offset of each partition."""
    return dict(query(settings, "SELECT partition, next_offset FROM positions"))


def history(settings: Settings) -> dict[Place, HistoryRow]:
    """What came of every record that decodes, in the current life of the log."""
    rows = query(
        settings,
        "SELECT partition, offset, order_id, event_id, outcome, reason FROM history"
        " WHERE epoch = (SELECT max(epoch) FROM log_epochs)",
    )
    return {(partition, offset): HistoryRow(*row) for partition, offset, *row in rows}


def undelivered(settings: Settings) -> int:
    """How many events wait in the outbox, or are held there."""
    with closing(sqlite3.connect(settings.outbox_db, timeout=10)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM outbox WHERE state IN ('waiting', 'held')").fetchall()
    return int(count)


def epochs(settings: Settings) -> int:
    return int(query(settings, "SELECT count(*) FROM log_epochs")[0][0])
