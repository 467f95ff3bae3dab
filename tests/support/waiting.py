"""Waiting for something with a deadline, and holding a process still."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, within_s: float, every_s: float = 0.01) -> T:
    """Wait until ``condition()`` is true, and give what it gave; after the deadline the test fails, naming ``what``."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}; last: {found!r}")
        time.sleep(every_s)
    return found


@contextmanager
def interrupted_when(ready: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C for the test's own thread, as soon as something is so."""

    def interrupt() -> None:
        until(ready, "it can be interrupted", within_s=5)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def state_of(pid: int) -> str:
    """The kernel's letter for a process: ``R``, ``S``, ``T`` stopped, ``Z`` not reaped; empty when it has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    return state_of(pid) not in {"", "Z"}


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP a process, wait until it stands still, and let it go on at the end, whatever happens."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: state_of(pid) in {"T", ""}, f"process {pid} stands still", within_s=5)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
