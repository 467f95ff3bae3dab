"""The file outbox.db, as one object uses it: a connection of its own, one use at a time, short transactions."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orderflow.errors import StoreUnavailable, StoreUncertain
from orderflow.store import sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.settings import Settings


class OutboxFile:
    """outbox.db. Thread-safe. It is opened, and made, by its first use."""

    def __init__(self, settings: Settings, busy_timeout_s: float | None = None) -> None:
        self._path = settings.outbox_db
        self._busy_timeout_s = settings.outbox_busy_timeout_s if busy_timeout_s is None else busy_timeout_s
        self._lock = threading.Lock()
        self._connection: sqlite.Connection | None = None
        self._file: tuple[int, int] | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite.Connection]:
        """Run a transaction that takes the write lock at once.

        Raises:
            StoreUnavailable: nothing of it is in the file: it is locked, or cannot be written.
            StoreUncertain: it may be in the file.

        """
        with self._lock, self._told():
            connection = self._open()
            with sqlite.immediate(connection):
                yield connection

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Read; no cursor is left open.

        Raises:
            StoreUnavailable: it cannot be read.

        """
        with self._lock, self._told():
            return self._open().execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            self._forget()

    def _open(self) -> sqlite.Connection:
        """Give the connection; a new one when the file was replaced since."""
        if self._connection is None or self._identity() != self._file:
            self._forget()
            self._connection = sqlite.open_outbox(self._path, busy_timeout_s=self._busy_timeout_s)
            self._file = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return (status.st_dev, status.st_ino)

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Put SQLite's errors into ours; after one the file is opened anew."""
        try:
            yield
        except (sqlite.DatabaseError, OSError) as error:
            self._forget()
            if sqlite.MAYBE_COMMITTED in getattr(error, "__notes__", ()):
                raise StoreUncertain(f"{self._path} failed at the end of a commit: {error}") from error
            raise StoreUnavailable(f"{self._path} cannot be used: {error}") from error
