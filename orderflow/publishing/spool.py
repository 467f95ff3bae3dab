"""The spool: which orders have an undelivered event in the outbox, and putting further events there.

cart_service alone adds orders' events to the outbox, and the relay takes an event for delivered only when Kafka has
acknowledged it. So what is known here errs on the safe side: an order that is not in it has nothing in the outbox.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from orderflow.errors import StoreError, StoreUncertain
from orderflow.messages import Message, Published, Spooled
from orderflow.store.outbox_rows import Addition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.store.outbox import Outbox

log = structlog.get_logger(__name__)

#: That the outbox takes no events is logged so often; each caller is told for itself.
TELL_EVERY_S = 5.0


class Spool:
    """Thread-safe, but `store`, which one caller at a time may use."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Lock()
        self._orders: set[str] = set()
        #: Orders with an event on its way into the outbox.
        self._coming: Counter[str] = Counter()
        #: Orders that came since the outbox was asked; None while it is not being asked.
        self._meanwhile: set[str] | None = None
        self._told_at = -TELL_EVERY_S
        #: Orders that a held event holds.
        self.held: set[str] = set()
        #: None once the outbox was read: before, every order may have something in it.
        self.problem: str | None = "The outbox was not read yet."
        #: Why the outbox did not take the last events; None when it did.
        self.last_error: StoreError | None = None
        #: Whether an order may be in the set that has nothing in the outbox, since adding it failed.
        self.unsure = False
        #: Events that were put into the outbox.
        self.stored = 0

    def has(self, order_id: str) -> bool:
        """Tell whether an order has an undelivered event."""
        return order_id in self._orders

    @property
    def empty(self) -> bool:
        """Whether no order has an undelivered event."""
        return not self._orders

    def expect(self, messages: Iterable[Message]) -> None:
        """Take note of events that `store` will be given: later ones of their orders must not overtake them."""
        orders = [message.order_id for message in messages]
        with self._lock:
            self._coming.update(orders)
            self._orders.update(orders)
            if self._meanwhile is not None:
                self._meanwhile.update(orders)

    def store(self, events: Sequence[tuple[Message, bool]]) -> list[Spooled | Published | StoreError]:
        """Put events into the outbox, with whether each was sent; tell what is true of each then."""
        results: list[Spooled | Published | StoreError]
        try:
            additions: Sequence[Addition | StoreError] = self._outbox.add(events)
        except StoreError as error:
            additions = [error] * len(events)
        except Exception as error:
            log.exception("outbox.failed", events=len(events))
            additions = [StoreUncertain(f"Spooling ended with an error that nobody foresaw: {error!r}")] * len(events)
        finally:
            self.forget(message for message, _ in events)
        results = [_told(addition) for addition in additions]
        failed = [result for result in results if isinstance(result, StoreError)]
        self.stored += sum(isinstance(addition, Addition) and addition.new for addition in additions)
        self.last_error = failed[-1] if failed else None
        self.unsure = self.unsure or bool(failed)
        if failed and time.monotonic() - self._told_at >= TELL_EVERY_S:
            self._told_at = time.monotonic()
            log.error("outbox.not_spooled", events=len(failed), error=str(failed[0]))
        return results

    def forget(self, messages: Iterable[Message]) -> None:
        """Take note that these are not expected any more. Their orders stay until the outbox is asked."""
        with self._lock:
            self._coming.subtract(message.order_id for message in messages)
            self._coming += Counter()  # drops those at zero

    def refresh(self, outbox: Outbox) -> None:
        """Ask the outbox, over a connection that is not the one for adding, which orders it has.

        Raises:
            StoreError: it cannot be read; what was known stays.

        """
        with self._lock:
            self._meanwhile = set(self._coming)
            self.unsure = False
        try:
            waiting, self.held = outbox.waiting_orders(), outbox.held_orders()
        except StoreError as error:
            self._meanwhile, self.unsure = None, True
            if self.problem is not None:
                self.problem = str(error)
            raise
        with self._lock:
            self._orders = waiting | self._meanwhile
            self._meanwhile = None
        self.problem = None


def _told(addition: Addition | StoreError) -> Spooled | Published | StoreError:
    if isinstance(addition, StoreError):
        return addition
    if addition.partition is not None and addition.offset is not None:
        return Published(addition.partition, addition.offset)  # The relay was quicker.
    return Spooled(addition.ahead)
