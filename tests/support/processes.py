"""Which processes belong to a stack, by the folder of data in their environment."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import psutil

from orderflow.settings import variable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

    from orderflow.settings import Settings

T = TypeVar("T", str, bytes)

#: How long processes that were told to end may take to be gone.
GRACE_S = 5.0


@contextmanager
def ended_at_last(process: Popen[T]) -> Iterator[Popen[T]]:
    """A process that is killed where it has not ended: a test that fails does not wait for it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def processes_of(settings: Settings) -> list[psutil.Process]:
    """All processes of the stack with these settings, whoever their parent is."""
    return [process for process in psutil.process_iter() if _var_dir(process) == settings.var_dir]


def end_what_is_left(settings: Settings) -> list[str]:
    """Kill what still runs of a stack that was taken down; name it."""
    deadline = time.monotonic() + GRACE_S
    while (left := processes_of(settings)) and time.monotonic() < deadline:
        time.sleep(0.05)
    named = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            named.append(f"{process.pid} {' '.join(process.cmdline())[:150]}")
            process.kill()
    return named


def listeners(port: int) -> set[int]:
    """The processes that listen on a port of this machine."""
    found = psutil.net_connections(kind="tcp")
    return {c.pid for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid is not None}


def _var_dir(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(variable("var_dir"))
    except psutil.Error:
        return None
