"""A projection whose file is damaged, or lost; nobody may be writing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

#: Of the file: its first page stays, with the schema.
PAGE = 8192


def damage(path: Path, how: Literal["pages", "all", "missing"]) -> None:
    """Damage the file. What is in its WAL is moved into it before: else SQLite finds every page there, whole."""
    with closing(sqlite3.connect(path)) as connection:
        ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert not busy
    if how == "missing":
        path.unlink()
    elif how == "all":
        path.write_bytes(b"no database at all, " * 1_000)
    else:
        content = path.read_bytes()
        path.write_bytes(content[:PAGE] + b"\xee" * (len(content) - PAGE))
