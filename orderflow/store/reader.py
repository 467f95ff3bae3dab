"""Reading the projection: short queries, no cursor left open, a connection for each thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orderflow.errors import StoreUnavailable
from orderflow.store import sqlite
from orderflow.store.bounded import within
from orderflow.store.rows import OrderRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orderflow.settings import Settings

#: Ids that one query of a walk over all of them fetches.
WALK_PAGE = 10_000


#: So long one query may search through everything; a million events take a tenth of a second.
SEARCH_S = 2.0

_ORDER = f"SELECT {', '.join(OrderRow._fields)} FROM orders WHERE order_id = ?"  # noqa: S608 (no outside text)


_ORDERS = f"""
SELECT arrival, {", ".join(OrderRow._fields)} FROM orders
WHERE arrival < :before AND (:status IS NULL OR status = :status) ORDER BY arrival DESC LIMIT :limit
"""  # noqa: S608 (no outside text)


class Reader:
    """The projection, read-only. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.orders_db
        self._busy_timeout_s = settings.store_busy_timeout_s
        self._local = threading.local()

    def order(self, order_id: str) -> OrderRow | None:
        """Give one order; None when there is none of that id."""
        rows = self.query(_ORDER, (order_id,))
        return OrderRow(*rows[0]) if rows else None

    def order_ids(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Give (arrival, id) of the orders that came to be after that arrival, oldest first."""
        return self.query(
            "SELECT arrival, order_id FROM orders WHERE arrival > ? ORDER BY arrival LIMIT ?", (after, limit)
        )

    def walk_order_ids(self) -> Iterator[list[str]]:
        """Give all ids in order of arrival, in pages by key: between two pages nothing is held."""
        after = 0
        while page := self.order_ids(after, WALK_PAGE):
            yield [order_id for _, order_id in page]
            after = page[-1][0]

    def orders(self, status: str | None, before: int, limit: int) -> list[tuple[int, OrderRow]]:
        """Give (arrival, order) of the orders that came to be before that arrival, newest first.

        Raises:
            SearchTooLong: so few have the status that finding them takes more than `SEARCH_S`.
            StoreUnavailable: the projection cannot be read.

        """
        asked = {"status": status, "before": before, "limit": limit}
        if status is None:  # The next ones are those that are meant: there is nothing to look for.
            rows = self.query(_ORDERS, asked)
        else:
            with self.snapshot() as connection:
                rows = within(SEARCH_S, connection, _ORDERS, asked, f"To look for orders that are {status}")
        return [(arrival, OrderRow(*row)) for arrival, *row in rows]

    def version(self) -> object:
        """Give a value that is another one once another process has committed, or the file was replaced.

        Only two of the same thread can be compared.
        """
        ((version,),) = self.query("PRAGMA data_version")
        return (self._local.file, version)

    def check(self) -> None:
        """Make sure that the projection can be read.

        Raises:
            StoreUnavailable: it cannot.

        """
        self.query("SELECT 1 FROM log_epochs LIMIT 1", ())

    @contextmanager
    def snapshot(self) -> Iterator[sqlite.Connection]:
        """Give a connection for some queries that see one state of the projection.

        Raises:
            StoreUnavailable: it cannot be read.

        """
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        except sqlite.DatabaseError as error:
            self._forget()
            raise StoreUnavailable(f"{self._path} cannot be read: {error}") from error

    def query(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        """Run one query.

        Raises:
            StoreUnavailable: the projection cannot be read.

        """
        try:
            return self._connection().execute(sql, parameters).fetchall()
        except sqlite.DatabaseError as error:
            self._forget()
            raise StoreUnavailable(f"{self._path} cannot be read: {error}") from error

    def _connection(self) -> sqlite.Connection:
        """Give this thread's connection; a new one when the file was replaced since."""
        file = _identity(self._path)
        if getattr(self._local, "file", None) != file:
            self._forget()
            self._local.connection = sqlite.open_reader(self._path, busy_timeout_s=self._busy_timeout_s)
            self._local.file = file
        connection: sqlite.Connection = self._local.connection
        return connection

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = self._local.file = None
        if connection is not None:
            connection.close()


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise StoreUnavailable(f"{path} is not there yet: the order-consumer creates it when it starts") from error
    return (status.st_dev, status.st_ino)
