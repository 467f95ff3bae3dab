"""What a client wrote last of each order, so that it never reads anything older."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

#: Orders that are remembered; the one that was written longest ago is forgotten first.
ORDERS_MAX = 10_000

#: Events of one order that are remembered while nobody reads it. Only an order that is written that often under keys
#: of the caller's own, without a read between, comes to more.
EVENTS_MAX = 100


class Awaited(NamedTuple):
    """An event that a read must not miss. Not ``last``: a write came after it, and its own fate is of no interest."""

    event_id: str
    last: bool


@dataclass(slots=True)
class _Write:
    """When it was acknowledged, and whether one that was sent later was, too."""

    acknowledged_at: float
    last: bool = True


class OwnWrites:
    """The last events of each order that were acknowledged: published or spooled. Bounded, thread-safe.

    Of two writes that overlapped nobody can say which is the later one, so both are. One under a key of the caller's
    own may have been sent before, and then is no later than it was: the others are awaited beside it.
    """

    def __init__(self, orders_max: int = ORDERS_MAX) -> None:
        self._orders: OrderedDict[str, dict[str, _Write]] = OrderedDict()
        self._orders_max = orders_max
        self._lock = threading.Lock()

    def note(self, order_id: str, event_id: str, began_at: float, *, is_new: bool) -> None:
        """Note a write that was acknowledged now; ``began_at`` is `time.monotonic` when it was sent.

        ``is_new``: its key was made for it, so that it comes after all that were acknowledged before.
        """
        with self._lock:
            writes = self._orders.pop(order_id, {})
            writes.pop(event_id, None)
            for one, write in list(writes.items()):
                if write.acknowledged_at <= began_at:
                    write.last = False
                    if is_new:
                        del writes[one]
            writes[event_id] = _Write(time.monotonic())
            if len(writes) > EVENTS_MAX:
                del writes[next(iter(writes))]
            self._orders[order_id] = writes
            if len(self._orders) > self._orders_max:
                self._orders.popitem(last=False)

    def awaited(self, order_id: str) -> tuple[Awaited, ...]:
        """Give the events that a read of the order must not miss; mostly one."""
        with self._lock:
            return tuple(Awaited(one, write.last) for one, write in self._orders.get(order_id, {}).items())

    def settled(self, order_id: str, event_id: str) -> None:
        """Forget an event that was applied or skipped, unless it is one of the last."""
        with self._lock:
            write = self._orders.get(order_id, {}).get(event_id)
            if write is not None and not write.last:
                del self._orders[order_id][event_id]
