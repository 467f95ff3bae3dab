"""What can be wrong with the place where a store lies: a disk without room, a database that somebody has locked."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from errno import ENOSPC
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Somebody who begins a transaction by hand, and takes so long to end it; the lock goes with the process.
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of its own, that is soon full. It takes the right to mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


@contextmanager
def no_room(disk: Path) -> Iterator[None]:
    """Fill a disk to its last block until the end of the block, with a file of somebody else's."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError as error:
            assert error.errno == ENOSPC
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def locked_by_another(database: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Have another process lock a database for so long; at the end of the block it must have let go by itself."""
    command = [sys.executable, "-c", LOCK, str(database), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
            until(lambda: process.poll() is not None, "the lock is free", seconds + 5)
            assert process.returncode == 0
        finally:
            process.kill()
