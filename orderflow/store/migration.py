"""Bringing a file of an earlier version to the present one: what it has is nowhere else, so nothing may be lost.

`add` gives a file what it lacks. `rebuild` takes any file: the new tables are made by the present script and filled
with what the old ones held, column by column of the same name. No step knows a version, and a file that was three
versions behind takes the same way as one that was one behind.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from orderflow.store.sqlite import Connection

#: In front of a table's name while its rows are copied.
_ASIDE = "before_"


def rebuild(connection: Connection, script: Iterable[str]) -> None:
    """Make the tables of a script in place of those that are there, and keep what they hold.

    Within a transaction of the caller: killed at any moment, the file is as it was. What the script adds beyond tables
    comes last, so that no trigger counts the rows that are copied, and an index is built once.
    """
    statements = list(script)
    tables = [one for one in statements if one.lstrip().upper().startswith("CREATE TABLE")]
    aside = _put_aside(connection)
    for statement in tables:
        connection.execute(statement)
    for name in aside:
        _copy(connection, name)
    for statement in statements:
        if statement not in tables:
            connection.execute(statement)


def add(connection: Connection, script: Iterable[str], names: Collection[str]) -> None:
    """Make the tables and indexes of these names, which a script has and the file lacks. Within a transaction."""
    for statement in script:
        made = _MAKES.match(statement)
        if made is not None and made[1] in names:
            connection.execute(statement)


_MAKES = re.compile(r"\s*CREATE (?:TABLE|INDEX) (\w+)")


def _put_aside(connection: Connection) -> list[str]:
    """Rename the tables, and drop their indexes and triggers; give the names that the tables had."""
    for kind, name in _things(connection, "type IN ('index', 'trigger')"):
        connection.execute(f'DROP {kind} "{name}"')
    names = [name for _, name in _things(connection, "type = 'table'")]
    for name in names:
        connection.execute(f'ALTER TABLE "{name}" RENAME TO "{_ASIDE}{name}"')
    return names


def _things(connection: Connection, which: str) -> list[tuple[str, str]]:
    """Give the kinds and names of what was made by a statement, and not by SQLite itself."""
    sql = f"SELECT type, name FROM sqlite_schema WHERE {which} AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"  # noqa: S608 (no outside text)
    return connection.execute(sql).fetchall()


def _copy(connection: Connection, name: str) -> None:
    """Fill a new table from the old one, go on with its numbers, and drop the old one."""
    old = _ASIDE + name
    columns = _columns(connection, name)
    if columns:
        common = ", ".join(f'"{column}"' for column in _columns(connection, old) if column in columns)
        connection.execute(f'INSERT INTO "{name}" ({common}) SELECT {common} FROM "{old}"')  # noqa: S608 (our own names)
    if _things(connection, "sql LIKE '%AUTOINCREMENT%'"):  # Else there is no table of sequences.
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
        connection.execute("UPDATE sqlite_sequence SET name = ? WHERE name = ?", (name, old))
    connection.execute(f'DROP TABLE "{old}"')


def _columns(connection: Connection, table: str) -> list[str]:
    """Give the columns that hold something: not those that are computed. None for a table that is not there."""
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")').fetchall()]
