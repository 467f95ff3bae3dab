"""A second set of the projection's tables, beside the ones that serve reads, in the same file.

A `SecondSet` is a connection whose statements mean the second set where they name a table, so the writer and the
projection fill it as they fill the first. `swap` lets it take the first one's place in one transaction.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orderflow.clock import now_ms
from orderflow.store.sqlite import ORDERS, Connection, immediate, open_writer, statements

if TYPE_CHECKING:
    from pathlib import Path

#: What a rebuild makes anew. The log's epochs are facts, and stay.
TABLES = ("positions", "progress", "history", "skipped_messages", "controls", "orders")

PREFIX = "rebuilt_"

_NAMED = re.compile(rf"\b({'|'.join(TABLES)})\b")


class SecondSet(Connection):
    """A connection to the file of the projection; `first` runs a statement on the tables that serve reads."""

    @classmethod
    def open(cls, path: Path, busy_timeout_s: float) -> SecondSet:
        """Open the file, and make the tables, empty. What an earlier rebuild left is removed."""
        connection = open_writer(path, busy_timeout_s=busy_timeout_s, factory=cls)
        assert isinstance(connection, cls)  # noqa: S101 (what the factory makes)
        try:
            connection.drop()
            connection.create()
        except BaseException:
            connection.close()
            raise
        return connection

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Run a statement on the second set."""
        return super().execute(_renamed(sql), parameters)

    def executemany(self, sql: str, parameters: Any) -> Any:
        """Run a statement for each of some rows on the second set."""
        return super().executemany(_renamed(sql), parameters)

    def first(self, sql: str, parameters: Any = ()) -> Any:
        """Run a statement on the tables as they are named in it."""
        return super().execute(sql, parameters)

    def drop(self) -> None:
        """Remove the second set."""
        remove_leftovers(self)

    def swap(self) -> None:
        """Let the second set take the place of the first, which is removed: all of it, or nothing."""
        with immediate(self):
            for table in TABLES:
                self.first(f"DROP TABLE {table}")
                self.first(f"ALTER TABLE {PREFIX}{table} RENAME TO {table}")

    def create(self) -> None:
        """Make the tables, empty. An index keeps its name for good, so each set has names of its own."""
        mark = now_ms()
        with immediate(self):
            for statement in statements(ORDERS.script):
                table = re.search(r"CREATE TABLE (\w+)|CREATE INDEX \w+ ON (\w+)", statement)
                if table is not None and (table[1] or table[2]) in TABLES:
                    self.first(_renamed(re.sub(r"CREATE INDEX (\w+)", rf"CREATE INDEX \1_{mark}", statement)))


def remove_leftovers(connection: Connection) -> None:
    """Remove a second set, as one that a rebuild left when it was killed. Nobody fills it meanwhile."""
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    left = [name for (name,) in found if name.removeprefix(PREFIX) in TABLES and name.startswith(PREFIX)]
    if left:
        with immediate(connection):
            for name in left:
                connection.execute(f"DROP TABLE {name}")


@lru_cache(maxsize=256)
def _renamed(sql: str) -> str:
    return _NAMED.sub(rf"{PREFIX}\1", sql)
