"""Delivering a group to Kafka: send, settle what is certain, and try the rest again with exponential backoff."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from orderflow.errors import Rejected, Unacknowledged, Undelivered
from orderflow.messages import Published
from orderflow.publishing.lanes import UNFORESEEN

if TYPE_CHECKING:
    from orderflow.broker import Producer
    from orderflow.publishing.lanes import Waiter
    from orderflow.publishing.retries import RetryPolicy

log = structlog.get_logger(__name__)


class Delivery:
    """One group at a time, in the thread of whoever leads it."""

    def __init__(self, producer: Producer, policy: RetryPolicy, probe_s: float) -> None:
        self._producer = producer
        self._policy = policy
        self._probe_s = probe_s
        #: Sends of a group that were made again.
        self.retries = 0

    def run(self, group: list[Waiter], *, probing: bool) -> str | None:
        """Settle all that is acknowledged, or rejected before it was sent.

        Tell why Kafka did not take the rest; None when it answered for all.
        """
        try:
            pending = self._attempt(group, self._probe_s if probing else None)
            if pending and not probing:
                pending = self._retry(pending)
        except Exception:
            log.exception("publish.failed", events=len(group))
            pending = [waiter for waiter in group if waiter.outcome is None]
            for waiter in pending:
                waiter.sent = True  # Nobody knows how far it got.
        if not pending:
            return None
        why = str(pending[0].error or UNFORESEEN)
        sent = sum(waiter.sent for waiter in pending)
        if probing:  # No error: that Kafka is away was told before.
            log.warning("breaker.probe_failed", sent=sent, error=why, **_fields(pending))
        else:
            log.error("publish.gave_up", sent=sent, error=why, **_fields(pending))
        return why

    def _retry(self, pending: list[Waiter]) -> list[Waiter]:
        """Try again until all are settled, or retries or time are spent; return what is left."""
        try:
            for attempt in self._policy.attempts():
                with attempt:
                    if attempt.num > 1:  # The first was made by the caller: the usual case pays nothing for retries.
                        self.retries += 1
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


def _fields(waiters: list[Waiter]) -> dict[str, object]:
    """Name the events of a log line: their number, and the first ten."""
    return {
        "events": len(waiters),
        "order_ids": [waiter.message.order_id for waiter in waiters[:10]],
        "event_ids": [waiter.message.event_id for waiter in waiters[:10]],
        "trace_ids": [waiter.message.trace_id for waiter in waiters[:10]],
        "trace_id": waiters[0].message.trace_id if len(waiters) == 1 else None,  # never the leader's for another's
    }
