"""Lines to stdout, those of many threads together."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from multiprocessing.util import Finalize

#: How long a line waits for others, in seconds.
GATHER_S = 0.05

#: Beyond so many lines whoever logs writes them, and waits for the reader of the pipe if it must.
GATHERED_MAX = 10_000


class LineWriter:
    """A structlog logger: lines up to ``info`` are gathered for a moment, from ``warning`` on they go out at once.

    A write for each line lets go of Python's lock, and makes the threads of a service queue for it and for the file.
    What a process has gathered when it is killed is lost; so is what cannot be written, as on a full disk.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Begin anew, with nothing of a parent process: neither its lines nor its thread."""
        self._lines.clear()
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def gather(self, line: str) -> None:
        """Write the line soon."""
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()
            if self._thread is None:
                self._start()
        elif len(self._lines) > GATHERED_MAX:
            self.flush()

    def at_once(self, line: str) -> None:
        """Write the line, and what was gathered before it, now."""
        self._lines.append(line)
        self.flush()

    debug = info = gather
    warning = error = critical = at_once

    def flush(self) -> None:
        """Write what was gathered."""
        with self._writing:
            text = "".join(f"{self._lines.popleft()}\n" for _ in range(len(self._lines)))
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except (OSError, ValueError):
                pass  # Nobody can be told, and what is logged is no reason to fail: facts are in tables too.

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()
        # Runs at the end of a process that multiprocessing has started too; atexit's functions do not.
        Finalize(None, self.flush, exitpriority=0)

    def _run(self) -> None:
        while self._some.wait():
            time.sleep(GATHER_S)
            self._some.clear()
            self.flush()
