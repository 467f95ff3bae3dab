"""A new file for the projection takes the place of the old one whole, and the old one is kept whole."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from orderflow.errors import RebuildRefused, StoreIncompatible
from orderflow.rebuild import scratch
from orderflow.rebuild.scratch import from_scratch
from orderflow.settings import Settings
from orderflow.store import sqlite
from tests.support import store
from tests.support.rebuilding import FIVE, applied, on_topic
from tests.unit.test_projection import log_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_a_new_file_that_somebody_reads_is_not_put_in_place(tmp_path: Path) -> None:
    """What is in its WAL by then would be missing."""
    records = log_of(FIVE)
    settings = applied(tmp_path, records[:2])
    readers = []

    def look(*_: object) -> None:
        readers.append(sqlite3.connect(tmp_path / "orders.db.building", isolation_level=None))
        readers[-1].execute("BEGIN")
        readers[-1].execute("SELECT count(*) FROM orders").fetchall()

    with on_topic(records), pytest.raises(RebuildRefused, match="Another process reads"):
        from_scratch(settings, look)
    for one in readers:
        one.close()

    assert len(store.history(settings)) == 2
    assert not list(tmp_path.glob("*.building*"))


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_before_step(number: int) -> Iterator[None]:
    """Kill the process before it changes names in the folder for the n-th time; nothing is tidied up then."""
    steps = count()

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps) >= number:
                raise Killed
            return do(*arguments, **options)

        return step

    with (
        patch.object(scratch.os, "link", counted(scratch.os.link)),
        patch.object(scratch.Path, "unlink", counted(Path.unlink)),
        patch.object(scratch.Path, "rename", counted(Path.rename)),
    ):
        yield


def test_a_kill_at_any_step_parts_no_file_from_its_wal(tmp_path: Path) -> None:
    """What was committed last is in the WAL alone: it must be found with the file, under one name or the other."""
    ends = set()
    for number in range(20):
        folder = tmp_path / str(number)
        records = log_of(FIVE)
        settings = applied(folder / "before", records)
        with closing(sqlite3.connect(settings.orders_db)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("UPDATE orders SET status = 'only in the WAL'")
            connection.commit()
            shutil.copytree(folder / "before", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
        settings = Settings(var_dir=str(folder), store_busy_timeout_s=0.1)

        with on_topic(records), killed_before_step(number):
            try:
                from_scratch(settings, lambda *_: None)
                ends.add("done")
            except Killed:
                ends.add("killed")

        whole = [path for path in folder.glob("orders.db*") if path.suffix == ".db" or path.name[-1].isdigit()]
        found = [_status(path, folder) for path in whole]
        assert "only in the WAL" in found, (number, sorted(folder.iterdir()))
        assert set(found) <= {"only in the WAL", "shipped"}
    assert ends == {"done", "killed"}


def _status(path: Path, folder: Path) -> str:
    """Open a copy of a file with what belongs to it, whole as it must be."""
    copy = folder / "copy" / "orders.db"
    copy.parent.mkdir(exist_ok=True)
    for end in ("", "-wal"):
        copy.with_name(copy.name + end).unlink(missing_ok=True)
        if (old := Path(f"{path}{end}")).exists():
            shutil.copy(old, f"{copy}{end}")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((status,),) = connection.execute("SELECT status FROM orders").fetchall()
    return str(status)


def test_a_file_of_another_version_is_refused_as_it_is_and_not_held_open(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("PRAGMA user_version = 99")
    content, made = path.read_bytes(), list[Any]()

    class Watched(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    with pytest.raises(StoreIncompatible, match="version 99"):
        sqlite.open_writer(path, busy_timeout_s=0.1, factory=Watched)

    assert path.read_bytes() == content
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")
