"""Copies of the two databases, each of one moment, that nobody writes while they are read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from orderflow.errors import StoreError, StoreIncompatible, StoreUnavailable
from orderflow.process import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings

#: The versions of the tables that the audit knows.
ORDERS_VERSIONS, OUTBOX_VERSIONS = (2, 3), (1, 2)

#: What is left free on the disk, for those who work there.
SPARE_BYTES = 64 * 1024 * 1024

#: Pages that are copied at a time: between two times Ctrl-C is heard.
PAGES_AT_ONCE = 4_096

#: A copy is read from front to back, mostly.
CACHE_KIB = 8 * 1024

#: In front of the names of the folders that audits work in.
PREFIX = ".orderflow-audit-"

DatabaseError = sqlite3.Error


def make_sure_of_files(settings: Settings) -> None:
    """Make sure that there is something to copy, and room for it.

    Raises:
        StoreError: there is not.

    """
    orders, outbox, folder = settings.orders_db, settings.outbox_db, settings.var
    if not orders.exists():
        raise StoreUnavailable(f"there is no {orders}; run this in the stack's folder, or name that with --stack DIR")
    files = (orders, orders.with_name(orders.name + "-wal"), outbox)
    needed = sum(path.stat().st_size for path in files if path.exists()) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"the audit copies both databases to {folder}, which takes {needed / 2**20:.0f} MiB, and there are "
            f"{free / 2**20:.0f} MiB free; make room, and run it again"
        )


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Give a folder of this process's own. It is removed afterwards; so are those that killed audits have left.

    Raises:
        StoreError: it cannot be made.

    """
    try:
        for left in folder.glob(f"{PREFIX}*"):
            _remove_if_left(left)
        made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreError(f"the audit cannot work in {folder}: {error}") from error
    with made as name, _held(Path(name)):
        yield Path(name)


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Lock a folder for as long as this process works in it; False where another one does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # Another audit has ended meanwhile.
        yield False
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_left(path: Path) -> None:
    with _held(path) as left:
        if left:
            shutil.rmtree(path, ignore_errors=True)


def copy(path: Path, folder: Path, versions: tuple[int, ...], busy_timeout_s: float) -> None:
    """Copy a database into a folder as it is at one moment; its writers go on, or wait for as long as this takes.

    Raises:
        StoreError: it cannot be read or copied, or another version of orderflow has written it.

    """
    try:
        with closing(sqlite3.connect(folder / path.name, isolation_level=None)) as target:
            _fill(target, path, busy_timeout_s)
            (found,) = target.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path} cannot be copied: {error}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be copied to {folder}: {error}") from error
    if found not in versions:
        read = " and ".join(map(str, versions))
        raise StoreIncompatible(f"{path} has schema version {found}, and this audit reads version {read}")


def open_copy(path: Path) -> sqlite3.Connection:
    """Open a copy, which nobody writes any more."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def new_database(path: Path, table: str) -> sqlite3.Connection:
    """Make a database with one table, for what would take much memory.

    Raises:
        StoreError: there is no room for it.

    """
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(table)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"there is no room for the audit in {path.parent}: {error}") from error
    return connection


def _fill(target: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    """Copy in one read transaction. Afterwards the copy needs no file beside it."""
    mode = "ro" if _has_wal(path) else "rw"  # A rollback journal that was left behind is played back by a writer only.
    target.execute("PRAGMA synchronous = OFF")
    uri = f"file:{quote(str(path))}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None)) as source:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        source.backup(target, pages=PAGES_AT_ONCE, progress=lambda *_: None, sleep=0)
    target.execute("PRAGMA journal_mode = MEMORY")


def _has_wal(path: Path) -> bool:
    """Tell from a database's header whether it has a write-ahead log."""
    with path.open("rb") as file:
        return file.read(20)[18:19] == b"\x02"
