"""A pause for callers whose order has something in the outbox while Kafka takes events.

Sent behind it at once, an order in constant use would never leave the outbox: its next event is always there before the
relay has delivered the last one. After a moment's pause the order is free, and goes to Kafka directly again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orderflow.publishing.lanes import Waiter


class Pause:
    """Callers by their order, each order's in order of arrival. Used under the publisher's lock."""

    def __init__(self, orders_max: int) -> None:
        self._orders_max = orders_max
        self._waiters: dict[str, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether no further order may pause: who pauses holds a thread."""
        return len(self._waiters) >= self._orders_max

    def has(self, order_id: str) -> bool:
        """Tell whether an event of an order pauses: then its later ones pause behind it."""
        return order_id in self._waiters

    def join(self, waiter: Waiter) -> None:
        """Let a caller pause."""
        waiter.lane = None
        self._waiters.setdefault(waiter.message.order_id, []).append(waiter)

    def orders(self) -> list[str]:
        """Give the orders that pause."""
        return list(self._waiters)

    def take(self, order_id: str) -> list[Waiter]:
        """End the pause of an order's callers, and give them."""
        return self._waiters.pop(order_id, [])
