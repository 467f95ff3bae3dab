"""Publishing with group commit: one group of events in flight, and never two events of one order in it.

The first waiting caller leads: it takes what waits, sends it as one group, waits for all of it, makes the next
caller leader and wakes its followers. Handing over between threads costs more than sending, so a group pays.

A send that fails is retried with exponential backoff (`RetryPolicy`), by the leader for the whole group.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from orderflow.broker.messages import Message, Outcome, Published, Refused, Unknown
from orderflow.broker.retries import RetryPolicy
from orderflow.errors import BrokerError, NotAccepted, Rejected, Unacknowledged, Undelivered, Unsent

if TYPE_CHECKING:
    from orderflow.broker.producer import Producer
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: How much longer than its deadline a follower waits for its leader. The leader settles every event by then.
GRACE_S = 2.0

TOO_LATE = "Kafka did not take earlier events in time; this one was not sent."


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


@dataclass(eq=False, slots=True)
class _Waiter:
    """One caller in `Publisher.publish`, and what comes of its message."""

    message: Message
    deadline: float  # of time.monotonic()
    gate: threading.Lock = field(default_factory=_closed_gate)
    leads: bool = False
    outcome: Outcome | None = None
    error: BrokerError | None = None
    sent: bool = False  # handed to the network at least once

    def give_up(self, error: BrokerError) -> Outcome:
        """Settle with what is true when no attempt was acknowledged."""
        self.outcome = Unknown(error) if self.sent else Refused(error)
        return self.outcome

    def wake(self) -> None:
        """Let the caller go on: it leads now, or is settled."""
        if self.gate.locked():
            self.gate.release()

    def left_s(self) -> float:
        return self.deadline - time.monotonic()


class Publisher:
    """Publishes events; one per process. Thread-safe."""

    def __init__(self, settings: Settings, producer: Producer, policy: RetryPolicy | None = None) -> None:
        self._producer = producer
        self._policy = policy or RetryPolicy.from_settings(settings)
        self._group_max = settings.publish_group_max
        self._waiting_max = settings.publish_waiting_max
        self._lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._led = False
        self.in_flight = 0

    def publish(self, message: Message) -> Outcome:
        """Publish one event and tell what came of it, within the policy's deadline."""
        waiter = _Waiter(message, time.monotonic() + self._policy.deadline_s)
        with self._lock:
            if self.in_flight >= self._waiting_max:
                return Refused(NotAccepted(f"{self.in_flight} events wait for Kafka already; that is the bound."))
            self.in_flight += 1
            self._queue.append(waiter)
            leads, self._led = not self._led, True
        try:
            if leads or self._follow(waiter):
                self._lead()
        finally:
            with self._lock:
                self.in_flight -= 1
        # Without an outcome it was withdrawn unsent, or (a bug) its leader did not settle it.
        return waiter.outcome or waiter.give_up(waiter.error or Unsent(TOO_LATE))

    # The group.

    def _follow(self, waiter: _Waiter) -> bool:
        """Wait for the leader. True: this caller leads now."""
        if not waiter.gate.acquire(timeout=max(0.0, waiter.left_s())):
            if self._withdraw(waiter):
                return False
            # A leader has taken it at the last moment: the gate opens soon.
            waiter.gate.acquire(timeout=self._policy.attempt_s + GRACE_S)
            waiter.sent = True  # as far as this caller can know
        return waiter.leads and waiter.outcome is None

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Leave the queue unsent; a leadership that was just given is handed on."""
        with self._lock:
            if waiter not in self._queue:
                return False
            self._queue.remove(waiter)
            if waiter.leads:
                self._promote()
            return True

    def _lead(self) -> None:
        group: list[_Waiter] = []
        try:
            with self._lock:
                group = self._take_group()
            self._deliver(group)
        except Exception:
            log.exception("publish.failed", events=len(group))
            for waiter in group:
                waiter.sent = True  # Nobody knows how far it got.
        finally:
            with self._lock:
                self._promote()
            for waiter in group:
                if waiter.outcome is None:
                    waiter.give_up(Unacknowledged("Publishing ended with an error that nobody foresaw; see the log."))
                waiter.wake()

    def _take_group(self) -> list[_Waiter]:
        """Take what waits, in order of arrival: at most one event of an order, and none that overtakes another."""
        group: list[_Waiter] = []
        left: deque[_Waiter] = deque()
        keys: set[bytes] = set()
        for waiter in self._queue:
            if waiter.message.key in keys or len(group) >= self._group_max:
                left.append(waiter)
            else:
                group.append(waiter)
            keys.add(waiter.message.key)
        self._queue = left
        return group

    def _promote(self) -> None:
        """Make the caller that waits longest the leader. Called under the lock."""
        self._led = bool(self._queue)
        if self._led:
            self._queue[0].leads = True
            self._queue[0].wake()

    # The delivery.

    def _deliver(self, group: list[_Waiter]) -> None:
        """Settle all: acknowledged, rejected, or given up when retries or time are spent."""
        pending = self._attempt(group)
        if pending:
            self._retry(pending)

    def _retry(self, pending: list[_Waiter]) -> None:
        given_up: list[_Waiter] = []
        try:
            for attempt in self._policy.attempts():
                with attempt:
                    if attempt.num > 1:  # The first was made by the caller: the usual case pays nothing for retries.
                        pending = self._attempt(pending)
                    in_time = [w for w in pending if w.left_s() > attempt.next_wait + self._policy.attempt_s]
                    given_up += [w for w in pending if w not in in_time]
                    pending = in_time
                    if pending:
                        raise Undelivered(str(pending[0].error), _fields(pending))  # noqa: TRY301 (what the policy waits for)
        except Undelivered:
            given_up += pending
        for waiter in given_up:
            waiter.give_up(waiter.error or Unsent(TOO_LATE))
        if given_up:
            sent = sum(waiter.sent for waiter in given_up)
            log.error("publish.gave_up", sent=sent, error=str(given_up[0].error), **_fields(given_up))

    def _attempt(self, pending: list[_Waiter]) -> list[_Waiter]:
        """Send once; settle what is certain; return the rest."""
        results = self._producer.deliver([waiter.message for waiter in pending])
        for waiter, result in zip(pending, results, strict=True):
            if isinstance(result, Published):
                waiter.outcome = result
                continue
            waiter.error = result
            waiter.sent = waiter.sent or isinstance(result, Unacknowledged)
            if isinstance(result, Rejected):
                waiter.give_up(result)
                log.error("publish.rejected", error=str(result), **_fields([waiter]))
        return [waiter for waiter in pending if waiter.outcome is None]


def _fields(waiters: list[_Waiter]) -> dict[str, object]:
    """Name the events of a log line: their number, and the first ten."""
    return {
        "events": len(waiters),
        "order_ids": [waiter.message.order_id for waiter in waiters[:10]],
        "event_ids": [waiter.message.event_id for waiter in waiters[:10]],
        "trace_ids": [waiter.message.trace_id for waiter in waiters[:10]],
        "trace_id": waiters[0].message.trace_id if len(waiters) == 1 else None,  # never the leader's for another's
    }
