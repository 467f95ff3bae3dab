"""The breaker: closed while Kafka takes events; open after it did not, so that callers do not wait for it in vain.

Open, one event at a time is a probe: half-open while it is on its way. Its acknowledgement closes the breaker.
"""

from __future__ import annotations

import time
from enum import StrEnum


class State(StrEnum):
    """What becomes of an event that may go either way."""

    CLOSED = "closed"  # it is sent
    HALF_OPEN = "half_open"  # a probe is on its way; the others are spooled
    OPEN = "open"  # it is spooled, or it is the next probe

    @property
    def words(self) -> str:
        """The state, for people."""
        return self.value.replace("_", "-")


class Breaker:
    """Told by the publisher, under its lock, which logs what came of it when it has let go; read by anyone.

    It begins open, without probes: nothing is sent before the topic was verified (`verified`).
    """

    def __init__(self, probe_interval_s: float) -> None:
        self._probe_interval_s = probe_interval_s
        self._next_probe = 0.0
        self._verified = False
        self.state = State.OPEN
        self.why = "The topic was not verified yet."
        self.since = time.monotonic()
        #: How often it was opened by a failure.
        self.openings = 0

    @property
    def closed(self) -> bool:
        """Whether events are sent."""
        return self.state is State.CLOSED

    def verified(self) -> float | None:
        """Take note that the topic is there and right: events may be sent. Before, none was."""
        if self._verified:
            return None
        self._verified = True
        return self._close()

    def unverified(self, why: str) -> bool:
        """Take note that the topic could not be verified for long; tell whether that opened it."""
        return not self._verified and self.fail(why)

    def probe_due(self) -> bool:
        """Tell whether the next event shall be a probe."""
        return self._verified and self.state is State.OPEN and time.monotonic() >= self._next_probe

    def probe(self) -> None:
        """Take note that a probe is on its way."""
        self.state = State.HALF_OPEN

    def fail(self, why: str) -> bool:
        """Take note that Kafka did not take an event: open, and probe later. Tell whether that opened it."""
        opens = self.state is State.CLOSED or not self.openings
        self._next_probe = time.monotonic() + self._probe_interval_s
        self.state, self.why = State.OPEN, why
        if opens:
            self.since = time.monotonic()
            self.openings += 1
        return opens

    def succeed(self) -> float | None:
        """Take note that Kafka took an event: close. Tell how long it was open, in seconds; None when it was not."""
        return self._close() if self._verified and self.state is not State.CLOSED else None

    def _close(self) -> float:
        open_s = time.monotonic() - self.since
        self.state, self.why, self.since = State.CLOSED, "", time.monotonic()
        return open_s
