"""Lanes: callers in a row, of whom one at a time does the work for a group.

The first waiting caller leads: it takes what waits, does the work for all of it, makes the next caller leader and wakes
its followers. Handing over between threads costs more than the work, so a group pays.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orderflow.errors import OrderflowError, Unacknowledged
from orderflow.messages import Message, Outcome, Refused, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


UNFORESEEN = "Publishing ended with an error that nobody foresaw; see the log."


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


@dataclass(eq=False, slots=True)
class Waiter:
    """One caller, and what comes of its message."""

    message: Message
    deadline: float  # of time.monotonic()
    gate: threading.Lock = field(default_factory=_closed_gate)
    lane: Lane | None = None
    leads: bool = False
    sent: bool = False  # handed to the network at least once
    late: bool = False  # its deadline has passed while a leader had it
    error: OrderflowError | None = None
    outcome: Outcome | None = None

    def give_up(self, error: OrderflowError) -> None:
        """Settle with what is true where nothing was acknowledged and nothing stored."""
        self.outcome = Unknown(error) if self.sent else Refused(error)

    def wake(self) -> None:
        """Let the caller go on: it leads now, or is settled."""
        if self.gate.locked():
            self.gate.release()

    def left_s(self) -> float:
        """Tell how long it is to its deadline."""
        return self.deadline - time.monotonic()


class Lane:
    """One row of callers. All lanes of a publisher share its lock; methods that say so are called under it."""

    def __init__(
        self,
        lock: threading.Lock,
        work: Callable[[list[Waiter]], None],
        *,
        group_max: int,
        one_of_an_order: bool,
    ) -> None:
        self._lock = lock
        self._work = work
        self._group_max = group_max
        self._one_of_an_order = one_of_an_order
        self._queue: deque[Waiter] = deque()
        self._group: list[Waiter] = []
        self._led = False

    def lead(self) -> None:
        """Do the work for a group, in the thread of its first caller. Whatever happens, the next one leads then."""
        group: list[Waiter] = []
        try:
            with self._lock:
                group = self._group = self._take_group()
            self._work(group)
        finally:
            with self._lock:
                self._group = []
                self._promote()
            for waiter in group:
                if waiter.lane is self:  # It may have gone to another lane meanwhile.
                    if waiter.outcome is None:
                        waiter.sent = True
                        waiter.give_up(Unacknowledged(UNFORESEEN))
                    waiter.wake()

    # Under the lock.

    def join(self, waiters: Iterable[Waiter]) -> None:
        """Put callers at the end of the row."""
        for waiter in waiters:
            waiter.lane = self
            self._queue.append(waiter)
        if not self._led:
            self._promote()

    def leave(self, waiter: Waiter) -> bool:
        """Take a caller out of the row; False when a leader has taken it."""
        if waiter not in self._queue:
            return False
        self._queue.remove(waiter)
        if waiter.leads:
            waiter.leads = False
            self._promote()
        return True

    def empty(self, keys: Collection[bytes | None] | None = None) -> list[Waiter]:
        """Take all that wait out of the row, or those with these keys. Only a leader may: then none of them leads."""
        taken = [waiter for waiter in self._queue if keys is None or waiter.message.key in keys]
        self._queue = deque(waiter for waiter in self._queue if keys is not None and waiter.message.key not in keys)
        return taken

    def has(self, key: bytes | None) -> bool:
        """Tell whether an event of an order is in this lane and not settled, waiting or at work."""
        return any(
            waiter.message.key == key and waiter.outcome is None and waiter.lane is self
            for waiters in (self._queue, self._group)
            for waiter in waiters
        )

    def _take_group(self) -> list[Waiter]:
        """Take what waits, in order of arrival; where one of an order is allowed, none overtakes another of it."""
        group: list[Waiter] = []
        left: deque[Waiter] = deque()
        keys: set[bytes | None] = set()
        for waiter in self._queue:
            if len(group) >= self._group_max or (self._one_of_an_order and waiter.message.key in keys):
                left.append(waiter)
            else:
                group.append(waiter)
            keys.add(waiter.message.key)
        self._queue = left
        return group

    def _promote(self) -> None:
        """Make the caller that waits longest the leader."""
        self._led = bool(self._queue)
        if self._led:
            self._queue[0].leads = True
            self._queue[0].wake()
