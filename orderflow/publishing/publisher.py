"""The publisher: decides for each event whether it goes to Kafka or to the outbox, and tells what came of it.

Events go to Kafka in groups, one group in flight, never two events of one order in it (`delivery`). When the retries of
a group are spent the breaker opens, and all that waits goes to the outbox, in order of arrival. While an order has an
event there, its later ones go there, too; once Kafka takes events again, after a moment's pause.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from orderflow.errors import NotAccepted, StoreError, StoreUnavailable, StoreUncertain, Unacknowledged, Unsent
from orderflow.messages import Message, Outcome, Refused
from orderflow.publishing.breaker import Breaker, State
from orderflow.publishing.delivery import Delivery
from orderflow.publishing.lanes import Lane, Waiter
from orderflow.publishing.pause import Pause
from orderflow.publishing.retries import RetryPolicy
from orderflow.settings import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.broker import Producer
    from orderflow.publishing.spool import Spool
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: Events that one transaction puts into the outbox.
SPOOL_GROUP_MAX = 500

#: This share of the callers that may wait may pause; the others go to the outbox at once.
PAUSING_SHARE = 4

TOO_LATE = "Kafka did not take earlier events in time; this one was not sent."


class Publisher:
    """Publishes events; one per process. Thread-safe."""

    def __init__(self, settings: Settings, producer: Producer, spool: Spool, policy: RetryPolicy | None = None) -> None:
        self._spool = spool
        self._policy = policy or RetryPolicy.from_settings(settings)
        self._delivery = Delivery(producer, self._policy, settings.breaker_probe_timeout_s)
        self._pause_s = min(settings.outbox_pause_s, self._policy.deadline_s / 2)
        self._spool_s = settings.outbox_busy_timeout_s + GRACE_S
        self._waiting_max = settings.publish_waiting_max
        self._lock = threading.Lock()
        self._direct = Lane(self._lock, self._deliver, group_max=settings.publish_group_max, one_of_an_order=True)
        self._behind = Lane(self._lock, self._store, group_max=SPOOL_GROUP_MAX, one_of_an_order=False)
        self._pause = Pause(max(1, settings.publish_waiting_max // PAUSING_SHARE))
        self.breaker = Breaker(settings.breaker_probe_interval_s)
        #: Whether the relay delivers: then an order is soon free again.
        self.draining = False
        self.in_flight = 0

    def publish(self, message: Message) -> Outcome:
        """Publish or spool one event and tell what came of it, within `Settings.write_answered_within_s`."""
        waiter = Waiter(message, time.monotonic() + self._policy.deadline_s)
        with self._lock:
            refusal = self._admit(waiter)
            if refusal is not None:
                return Refused(refusal)
            self.in_flight += 1
        try:
            while waiter.outcome is None:
                if waiter.leads and waiter.lane is not None:
                    waiter.leads = False
                    waiter.lane.lead()
                elif not waiter.gate.acquire(timeout=max(0.0, waiter.left_s())):
                    self._overdue(waiter)
        finally:
            with self._lock:
                self.in_flight -= 1
        return waiter.outcome

    @property
    def retries(self) -> int:
        """How often a group of events was sent again."""
        return self._delivery.retries

    # What is told from elsewhere.

    def verified(self) -> None:
        """Take note that the topic is there and right."""
        with self._lock:
            open_s = self.breaker.verified()
        _tell_closed(open_s)

    def unverified(self, why: str) -> None:
        """Take note that the topic could not be verified for long."""
        with self._lock:
            opened = self.breaker.unverified(why)
        if opened:
            log.error("breaker.opened", error=why)

    def recovered(self) -> None:
        """Take note that Kafka takes events, though none was published here."""
        with self._lock:
            open_s = self.breaker.succeed() if self.breaker.state is State.OPEN else None
        _tell_closed(open_s)

    def go_on(self) -> None:
        """Let those who pause go on whose order is free."""
        with self._lock:
            for order_id in self._pause.orders():
                if self.breaker.closed and not self._spool.has(order_id):
                    waiters = self._pause.take(order_id)
                    for waiter in waiters:
                        waiter.deadline = time.monotonic() + self._policy.deadline_s - self._pause_s
                    self._direct.join(waiters)

    @property
    def pausing(self) -> bool:
        """Whether somebody pauses."""
        return len(self._pause) > 0

    # Under the lock.

    def _admit(self, waiter: Waiter) -> NotAccepted | None:
        """Put the event where it waits, or say why it is not taken."""
        if self.in_flight >= self._waiting_max:
            return NotAccepted(f"{self.in_flight} events wait already; that is the bound.")
        if self._spool.problem is not None:
            return NotAccepted(f"It is not known which orders wait in the outbox. {self._spool.problem}")
        message = waiter.message
        if self._pause.has(message.order_id) or self._may_pause(message.order_id):
            waiter.deadline = time.monotonic() + self._pause_s
            self._pause.join(waiter)
        elif self._spool.has(message.order_id):
            self._send_behind([waiter])
        elif self.breaker.closed or self._direct.has(message.key):  # It may be a probe that is on its way.
            self._direct.join([waiter])
        elif self.breaker.probe_due():
            self.breaker.probe()
            self._direct.join([waiter])
        else:
            self._send_behind([waiter])
        return None

    def _may_pause(self, order_id: str) -> bool:
        """Tell whether an order has something in the outbox, and will soon be free."""
        spool = self._spool
        well = self.breaker.closed and self.draining
        return well and spool.has(order_id) and order_id not in spool.held and not self._pause.full

    def _send_behind(self, waiters: Iterable[Waiter]) -> None:
        """Put callers into the lane to the outbox, but those that are settled: nobody would lead in their place."""
        left = [waiter for waiter in waiters if waiter.outcome is None]
        self._spool.expect(waiter.message for waiter in left)
        deadline = time.monotonic() + self._spool_s
        for waiter in left:
            waiter.deadline = deadline
        self._behind.join(left)

    # A caller whose deadline has passed.

    def _overdue(self, waiter: Waiter) -> None:
        """Take it out of where it waits; where a leader has it, let that one settle it."""
        with self._lock:
            lane = waiter.lane
            if waiter.outcome is not None or waiter.left_s() > 0:  # It went elsewhere just now.
                return
            if lane is None:  # All of its order, so that none of them overtakes another.
                self._send_behind(self._pause.take(waiter.message.order_id))
            elif lane.leave(waiter):
                if lane is self._behind:
                    self._spool.forget([waiter.message])
                    waiter.error = StoreUnavailable("The outbox did not take earlier events in time.")
                elif self.breaker.state is State.HALF_OPEN:  # It may have been the probe.
                    self.breaker.fail(self.breaker.why)
                waiter.give_up(waiter.error or Unsent(TOO_LATE))
            elif waiter.late:
                waiter.sent = True  # as far as this caller can know
                waiter.give_up(Unacknowledged("Publishing did not end in time."))
            else:
                waiter.late = True
                waiter.deadline = time.monotonic() + self._policy.attempt_s + GRACE_S

    # The lane to Kafka.

    def _deliver(self, group: list[Waiter]) -> None:
        """Settle all that is acknowledged or rejected; the rest goes to the outbox."""
        probing = self.breaker.state is State.HALF_OPEN
        if probing:
            log.info("breaker.probed")
        why = self._delivery.run(group, probing=probing)
        if why is not None:
            self._give_up(group, why)
        elif probing or any(waiter.outcome is None for waiter in group):
            self._settle_rest(group, probing=probing)

    def _give_up(self, group: list[Waiter], why: str) -> None:
        """Open the breaker; what was not acknowledged, and all that waits behind it, goes to the outbox."""
        with self._lock:
            opened = self.breaker.fail(why)
            pausing = [waiter for order_id in self._pause.orders() for waiter in self._pause.take(order_id)]
            self._send_behind([*group, *self._direct.empty(), *pausing])
        if opened:
            log.error("breaker.opened", error=why)

    def _settle_rest(self, group: list[Waiter], *, probing: bool) -> None:
        """Kafka answered: what it rejected, though an earlier attempt may have arrived, waits with its order."""
        with self._lock:
            rejected = [waiter for waiter in group if waiter.outcome is None]
            if rejected:
                self._send_behind([*rejected, *self._direct.empty({waiter.message.key for waiter in rejected})])
            open_s = self.breaker.succeed() if probing else None
        _tell_closed(open_s)

    # The lane to the outbox.

    def _store(self, group: list[Waiter]) -> None:
        results = self._spool.store([(waiter.message, waiter.sent) for waiter in group])
        for waiter, result in zip(group, results, strict=True):
            if isinstance(result, StoreError):
                waiter.sent = waiter.sent or isinstance(result, StoreUncertain)
                waiter.give_up(result)
            else:
                waiter.outcome = result


def _tell_closed(open_s: float | None) -> None:
    if open_s is not None:
        log.info("breaker.closed", duration_s=round(open_s, 3))
