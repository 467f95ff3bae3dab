"""Statements that may have to look through everything: they end after a time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orderflow.errors import SearchTooLong
from orderflow.store.sqlite import DatabaseError, is_interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.store.sqlite import Connection


def look_for_damage(connection: Connection, at_most_s: float) -> str | None:
    """Say what SQLite finds wrong with the file, as far as it gets in that time; None where it finds nothing."""
    try:
        with interrupted_after(connection, at_most_s):
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except DatabaseError as error:
        if not is_interrupt(error):
            raise
        return None
    return None if found == "ok" else " ".join(found.split())


def within(seconds: float, connection: Connection, sql: str, parameters: Any, what: str) -> list[Any]:
    """Run a query that may have to look through everything.

    Raises:
        SearchTooLong: ``what`` takes more than so many seconds.

    """
    try:
        with interrupted_after(connection, seconds):
            return connection.execute(sql, parameters).fetchall()
    except DatabaseError as error:
        if not is_interrupt(error):
            raise
        raise SearchTooLong(f"{what} takes more than {seconds:g} s.") from error


@contextmanager
def interrupted_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Interrupt what runs so long: by a thread, since the search for damage asks no progress handler."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
