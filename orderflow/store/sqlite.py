"""SQLite connections: pragmas and transaction mode in one place. The only importer of sqlite3."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from orderflow.errors import StoreIncompatible, StoreUnavailable
from orderflow.store.migration import add, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Connection = sqlite3.Connection
DatabaseError = sqlite3.DatabaseError


class Schema(NamedTuple):
    """The tables of one file. ``version`` counts up with every change of the script."""

    script: str
    version: int
    #: What to do with a file of another version.
    advice: str
    #: Whether a file of an earlier version is brought to this one when it is opened.
    migrates: bool = False
    #: What came with a version, where it came with nothing else: a file of the one before lacks that, and is given it.
    additions: Mapping[int, tuple[str, ...]] = MappingProxyType({})


#: A projection of a version whose tables are others is rebuilt, not migrated.
ORDERS = Schema(
    "orders.sql",
    3,
    "run `orderflow rebuild --from-scratch`: the projection is built anew from the topic",
    additions=MappingProxyType({3: ("progress", "skipped_by_event")}),
)

#: What is in this file is true nowhere else: it is never moved away.
OUTBOX = Schema("outbox.sql", 2, "run the orderflow that wrote it, and keep the file: events wait in it", migrates=True)

#: The note on an error of a commit that may have taken effect.
MAYBE_COMMITTED = "it may be committed"

#: Primary result codes of what passes: another process, a person or a disk is in the way.
TRANSIENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)


def open_writer(path: Path, *, busy_timeout_s: float, factory: type[Connection] = Connection) -> Connection:
    """Open the projection for writing, and create it if it is not there.

    WAL with synchronous=NORMAL: a power cut can undo the last commits, and the offsets with them: they are read again.

    Raises:
        StoreIncompatible: the file has another schema version.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, factory=factory)
    try:
        _refuse_other_version(connection, path)
        connection.execute("PRAGMA page_size = 8192")  # a new file's; fewer and fuller pages than with 4096
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # 32 MiB: what changes often is copied once
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -24576")  # 24 MiB: the inner pages of the indexes
        _make_sure_of(connection, ORDERS, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_outbox(path: Path, *, busy_timeout_s: float) -> Connection:
    """Open the outbox, which several processes write; create it, or migrate it, where needed. For reading, too.

    A rollback journal with synchronous=FULL: what was committed outlives a power cut. TRUNCATE, since a journal that is
    deleted can come back with the power, and would undo the commit.

    Raises:
        StoreIncompatible: a later version of orderflow has written the file.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        if _version(connection) != OUTBOX.version:
            _make_sure_of(connection, OUTBOX, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, *, busy_timeout_s: float) -> Connection:
    """Open the projection read-only.

    Raises:
        StoreUnavailable: there is no such file yet.
        StoreIncompatible: the file has another schema version.

    """
    try:
        uri = f"file:{quote(str(path))}?mode=ro"
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA cache_size = -512")  # 0.5 MiB: a service has one for each of its threads
        found = _version(connection)
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(
            f"{path} cannot be read ({error}): the order-consumer creates it when it starts"
        ) from error
    if found == 0:
        connection.close()
        raise StoreUnavailable(f"{path} is being created by the order-consumer")
    if found != ORDERS.version:
        connection.close()
        raise _incompatible(path, ORDERS, found)
    return connection


def open_memory() -> Connection:
    """Open an empty projection in memory, for a copy of a part."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for statement in statements(ORDERS.script):
        connection.execute(statement)
    return connection


def _make_sure_of(connection: Connection, schema: Schema, path: Path) -> None:
    """Create the tables in a new file; bring one of an earlier version to this one where that is the way."""
    with immediate(connection):
        found = _version(connection)
        if found == schema.version:  # Another process was quicker.
            return
        lacking = _lacking(schema, found)
        if found > schema.version or not (found == 0 or lacking or schema.migrates):
            raise _incompatible(path, schema, found)
        if lacking:
            add(connection, statements(schema.script), lacking)
        elif found:
            rebuild(connection, statements(schema.script))
        else:
            for statement in statements(schema.script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema.version}")


def _lacking(schema: Schema, found: int) -> list[str]:
    """Name what a file of a version lacks; nothing where it differs in more than that."""
    versions = range(found + 1, schema.version + 1)
    if found == 0 or any(version not in schema.additions for version in versions):
        return []
    return [name for version in versions for name in schema.additions[version]]


@contextmanager
def immediate(connection: Connection) -> Iterator[None]:
    """Run a transaction that takes the write lock at once: a deferred one would fail later, timeout or not."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        elif error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:  # It may come behind the point of no return.
            error.add_note(MAYBE_COMMITTED)
        raise


def _refuse_other_version(connection: Connection, path: Path) -> None:
    """Refuse a projection of another version, before anything of the file is changed."""
    if (found := _version(connection)) not in (0, ORDERS.version) and not _lacking(ORDERS, found):
        raise _incompatible(path, ORDERS, found)


def checkpoint(connection: Connection) -> bool:
    """Move all that is in the WAL into the file; tell whether nobody was in the way."""
    ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return not busy


def is_transient(error: BaseException) -> bool:
    """Tell whether the same statement may succeed later: locked, disk full, I/O error, no memory."""
    if isinstance(error, MemoryError):  # what sqlite3 makes of SQLITE_NOMEM
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.OperationalError) and code is not None and code & 0xFF in TRANSIENT


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite found the file damaged, or no database at all."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_interrupt(error: BaseException) -> bool:
    """Tell whether a statement was interrupted (`orderflow.store.bounded`)."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def _version(connection: Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def statements(script: str) -> Iterator[str]:
    """Part a script into its statements; one that makes a trigger has semicolons inside."""
    text = resources.files("orderflow.store").joinpath(script).read_text(encoding="utf-8")
    statement = ""
    for line in text.splitlines():
        if line.startswith("--"):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _incompatible(path: Path, schema: Schema, found: int) -> StoreIncompatible:
    return StoreIncompatible(
        f"{path} has schema version {found}, and this orderflow reads version {schema.version}; {schema.advice}"
    )
