"""Reads that wait until an event is applied: one thread looks for all of them, whenever the projection has changed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from orderflow.errors import StoreError
from orderflow.wsgi.draining import is_draining

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.timeline.fate import EventName, Fate, Fates

log = structlog.get_logger(__name__)


#: What may come of a wait: its event was applied or skipped, or not in time; the service stopped; no seat was free.
OUTCOMES = ("applied", "skipped", "late", "stopped", "refused")


class TooManyWait(Exception):
    """As many reads wait as may."""


class Stopping(Exception):
    """The service stops, so nobody is kept waiting."""


class _Waiter:
    """One read that waits: for which event, and what came of it."""

    __slots__ = ("come", "fate", "name")

    def __init__(self, name: EventName) -> None:
        self.name = name
        self.fate: Fate | None = None
        self.come = threading.Event()


class WaitingRoom:
    """Where reads wait for their events, ``seats`` of them at most. Thread-safe.

    ``PRAGMA data_version`` tells whether the consumer has committed something; only then the events that are waited for
    are looked up, all of them at once. While nobody waits nobody looks.
    """

    def __init__(self, settings: Settings, reader: Reader, fates: Fates, seats: int) -> None:
        self._look_s = settings.order_look_s
        self._reader = reader
        self._fates = fates
        self._seats = seats
        self._waiters: set[_Waiter] = set()
        self._unseen = False  # Somebody came since the last look.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        #: What came of those that had to wait.
        self.outcomes = Counter(dict.fromkeys(OUTCOMES, 0))

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    def wait(self, name: EventName, wait_s: float) -> Fate | None:
        """Tell what became of an event; where the consumer has not read it, wait. None: it has not in all that time.

        Raises:
            TooManyWait: all seats are taken.
            Stopping: the service stops.
            StoreUnavailable: the projection cannot be read.

        """
        fate = self._fates.of([name]).get(name)
        if fate is not None or wait_s <= 0:
            return fate
        waiter = _Waiter(name)
        self._sit_down(waiter)
        try:
            waiter.come.wait(wait_s)
        finally:
            with self._changed:
                self._waiters.discard(waiter)
        stopping = waiter.fate is None and is_draining()
        fate = waiter.fate or self._fates.of([name]).get(name)
        with self._changed:
            self.outcomes[fate.word if fate is not None else "stopped" if stopping else "late"] += 1
        if fate is None and stopping:
            raise Stopping
        return fate

    def _sit_down(self, waiter: _Waiter) -> None:
        with self._changed:
            if is_draining():
                raise Stopping
            if len(self._waiters) >= self._seats:
                self.outcomes["refused"] += 1
                raise TooManyWait
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="waiting-room", daemon=True)
                thread.start()
                self._thread = thread
            self._waiters.add(waiter)
            self._unseen = True
            self._changed.notify()

    # The thread that looks.

    def _run(self) -> None:
        seen: object = None
        while True:
            with self._changed:
                while not self._waiters:
                    self._changed.wait()
                unseen, self._unseen = self._unseen, False
            try:
                version = self._reader.version()
                if unseen or version != seen:
                    self._look()
                    seen = version
            except StoreError:
                seen = None  # Who waits looks again at the end, and says so if it is still so.
            except Exception:
                log.exception("waiting.look_failed")
                seen = None
            if is_draining():
                self._wake_all()
            time.sleep(self._look_s)

    def _look(self) -> None:
        """Wake those whose event was read."""
        with self._changed:
            waiters = list(self._waiters)
        fates = self._fates.of({waiter.name for waiter in waiters})
        for waiter in waiters:
            waiter.fate = fates.get(waiter.name)
            if waiter.fate is not None:
                waiter.come.set()

    def _wake_all(self) -> None:
        with self._changed:
            for waiter in self._waiters:
                waiter.come.set()
