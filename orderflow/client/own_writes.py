"""What a client wrote last of each order, so that it never reads anything older."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

#: Orders that are remembered; the one that was written longest ago is forgotten first.
ORDERS_MAX = 10_000

#: Events of an order by which a write that is sent once more is told from a new one.
KNOWN_MAX = 8


@dataclass(slots=True)
class _Writes:
    """Those of one order. ``last`` has, by event id, when each was acknowledged: several where they overlapped."""

    last: dict[str, float] = field(default_factory=dict)
    known: deque[str] = field(default_factory=lambda: deque(maxlen=KNOWN_MAX))


class OwnWrites:
    """The last event of each order that was acknowledged: published or spooled. Bounded, thread-safe.

    Of two writes that overlapped nobody can say which is the later one, so both are. An event that is sent once more
    is no later than it was.
    """

    def __init__(self, orders_max: int = ORDERS_MAX) -> None:
        self._orders: OrderedDict[str, _Writes] = OrderedDict()
        self._orders_max = orders_max
        self._lock = threading.Lock()

    def note(self, order_id: str, event_id: str, began_at: float) -> None:
        """Note a write that was acknowledged now; ``began_at`` is `time.monotonic` when it was sent."""
        with self._lock:
            writes = self._orders.setdefault(order_id, _Writes())
            self._orders.move_to_end(order_id)
            if event_id not in writes.known:
                writes.known.append(event_id)
                writes.last = {one: at for one, at in writes.last.items() if at > began_at}
                writes.last[event_id] = time.monotonic()
            if len(self._orders) > self._orders_max:
                self._orders.popitem(last=False)

    def last(self, order_id: str) -> tuple[str, ...]:
        """Give the events that a read of the order must not miss; mostly one."""
        with self._lock:
            writes = self._orders.get(order_id)
            return () if writes is None else tuple(writes.last)
