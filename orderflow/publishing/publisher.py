"""The publisher: decides for each event whether it goes to Kafka or to the outbox, and tells what came of it.

Events go to Kafka in groups, one group in flight, never two events of one order in it. A send that fails is retried
with exponential backoff (`RetryPolicy`), by the leader for the whole group. When the retries are spent the breaker
opens, and all that waits goes to the outbox, in order of arrival. While an order has an event there, its later ones go
there, too.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from orderflow.errors import NotAccepted, Rejected, StoreError, StoreUnavailable, Unacknowledged, Undelivered, Unsent
from orderflow.messages import Message, Outcome, Published, Refused
from orderflow.publishing.breaker import Breaker, State
from orderflow.publishing.lanes import UNFORESEEN, Lane, Waiter
from orderflow.publishing.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.broker import Producer
    from orderflow.publishing.spool import Spool
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: How much longer than its deadline a caller waits for a leader that has its event.
GRACE_S = 2.0

#: Events that one transaction puts into the outbox.
SPOOL_GROUP_MAX = 500

TOO_LATE = "Kafka did not take earlier events in time; this one was not sent."


class Publisher:
    """Publishes events; one per process. Thread-safe."""

    def __init__(self, settings: Settings, producer: Producer, spool: Spool, policy: RetryPolicy | None = None) -> None:
        self._producer = producer
        self._spool = spool
        self._policy = policy or RetryPolicy.from_settings(settings)
        self._probe_s = settings.breaker_probe_timeout_s
        self._spool_s = settings.outbox_busy_timeout_s + GRACE_S
        self._waiting_max = settings.publish_waiting_max
        self._lock = threading.Lock()
        self._direct = Lane(self._lock, self._deliver, group_max=settings.publish_group_max, one_of_an_order=True)
        self._behind = Lane(self._lock, self._store, group_max=SPOOL_GROUP_MAX, one_of_an_order=False)
        self.breaker = Breaker(settings.breaker_probe_interval_s)
        self.in_flight = 0

    def publish(self, message: Message) -> Outcome:
        """Publish or spool one event and tell what came of it, within its deadlines."""
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

    def verified(self) -> None:
        """Take note that the topic is there and right."""
        with self._lock:
            self.breaker.verified()

    def unverified(self, why: str) -> None:
        """Take note that the topic could not be verified for long."""
        with self._lock:
            self.breaker.unverified(why)

    def recovered(self) -> None:
        """Take note that Kafka takes events, though none was published here."""
        with self._lock:
            if self.breaker.state is State.OPEN:
                self.breaker.succeed()

    # Under the lock.

    def _admit(self, waiter: Waiter) -> NotAccepted | None:
        """Put the event into a lane, or say why it is not taken."""
        if self.in_flight >= self._waiting_max:
            return NotAccepted(f"{self.in_flight} events wait already; that is the bound.")
        if self._spool.problem is not None:
            return NotAccepted(f"It is not known which orders wait in the outbox. {self._spool.problem}")
        message = waiter.message
        if self._spool.holds(message.order_id):
            self._send_behind([waiter])
        elif self.breaker.closed:
            self._direct.join([waiter])
        elif self.breaker.probe_due():
            self.breaker.probe()
            self._direct.join([waiter])
        elif self._direct.holds(message.key):  # a probe that is on its way
            self._direct.join([waiter])
        else:
            self._send_behind([waiter])
        return None

    def _send_behind(self, waiters: Sequence[Waiter]) -> None:
        self._spool.expect(waiter.message for waiter in waiters)
        deadline = time.monotonic() + self._spool_s
        for waiter in waiters:
            waiter.deadline = deadline
        self._behind.join(waiters)

    # A caller whose deadline has passed.

    def _overdue(self, waiter: Waiter) -> None:
        """Take it out of its lane, where it still waits; where a leader has it, let that one settle it."""
        with self._lock:
            lane = waiter.lane
            if waiter.outcome is not None or lane is None or waiter.left_s() > 0:  # It went to another lane just now.
                return
            if lane.leave(waiter):
                if lane is self._behind:
                    self._spool.forget([waiter.message])
                    waiter.error = StoreUnavailable("The outbox did not take earlier events in time.")
                waiter.give_up(waiter.error or Unsent(TOO_LATE))
            elif waiter.late:
                waiter.sent = True  # as far as this caller can know
                waiter.give_up(Unacknowledged("Publishing did not end in time."))
            else:
                waiter.late = True
                waiter.deadline = time.monotonic() + self._policy.attempt_s + self._spool_s

    # The lane to Kafka.

    def _deliver(self, group: list[Waiter]) -> None:
        """Settle all that is acknowledged or rejected; the rest goes to the outbox."""
        probing = self.breaker.state is State.HALF_OPEN
        try:
            pending = self._attempt(group, self._probe_s if probing else None)
            if pending and not probing:
                pending = self._retry(pending)
        except Exception:
            log.exception("publish.failed", events=len(group))
            pending = [waiter for waiter in group if waiter.outcome is None]
            for waiter in pending:
                waiter.sent = True  # Nobody knows how far it got.
        left = [waiter for waiter in group if waiter.outcome is None]
        if pending:
            self._give_up(left, str(pending[0].error or UNFORESEEN), probing=probing)
        elif left or probing:
            self._settle_rest(left, probing=probing)

    def _settle_rest(self, left: list[Waiter], *, probing: bool) -> None:
        """Kafka answered: what it rejected, though an earlier attempt may have arrived, waits with its order."""
        with self._lock:
            if left:
                self._send_behind([*left, *self._direct.empty({waiter.message.key for waiter in left})])
            if probing:
                self.breaker.succeed()

    def _retry(self, pending: list[Waiter]) -> list[Waiter]:
        """Try again until all are settled, or retries or time are spent; return what is left."""
        try:
            for attempt in self._policy.attempts():
                with attempt:
                    if attempt.num > 1:  # The first was made by the caller: the usual case pays nothing for retries.
                        pending = self._attempt(pending)
                    if not pending or min(w.left_s() for w in pending) <= attempt.next_wait + self._policy.attempt_s:
                        break
                    raise Undelivered(str(pending[0].error), _fields(pending))  # noqa: TRY301 (what the policy waits for)
        except Undelivered:
            pass
        return pending

    def _attempt(self, pending: list[Waiter], timeout_s: float | None = None) -> list[Waiter]:
        """Send once; settle what is certain; return what another attempt may change."""
        results = self._producer.deliver([waiter.message for waiter in pending], timeout_s)
        left = []
        for waiter, result in zip(pending, results, strict=True):
            if isinstance(result, Published):
                waiter.outcome = result
                continue
            waiter.error = result
            if isinstance(result, Rejected):
                log.error("publish.rejected", error=str(result), **_fields([waiter]))
                if not waiter.sent:
                    waiter.give_up(result)
                continue
            waiter.sent = waiter.sent or isinstance(result, Unacknowledged)
            left.append(waiter)
        return left

    def _give_up(self, left: list[Waiter], why: str, *, probing: bool) -> None:
        """Open the breaker; what was not acknowledged, and all that waits behind it, goes to the outbox."""
        with self._lock:
            self.breaker.fail(why)
            self._send_behind([*left, *self._direct.empty()])
        sent = sum(waiter.sent for waiter in left)
        if probing:  # No error: that Kafka is away was told before.
            log.warning("breaker.probe_failed", sent=sent, error=why, **_fields(left))
        else:
            log.error("publish.gave_up", sent=sent, error=why, **_fields(left))

    # The lane to the outbox.

    def _store(self, group: list[Waiter]) -> None:
        results = self._spool.store([(waiter.message, waiter.sent) for waiter in group])
        for waiter, result in zip(group, results, strict=True):
            if isinstance(result, StoreError):
                waiter.give_up(result)
            else:
                waiter.outcome = result


def _fields(waiters: list[Waiter]) -> dict[str, object]:
    """Name the events of a log line: their number, and the first ten."""
    return {
        "events": len(waiters),
        "order_ids": [waiter.message.order_id for waiter in waiters[:10]],
        "event_ids": [waiter.message.event_id for waiter in waiters[:10]],
        "trace_ids": [waiter.message.trace_id for waiter in waiters[:10]],
        "trace_id": waiters[0].message.trace_id if len(waiters) == 1 else None,  # never the leader's for another's
    }
