"""W3C trace context: the one id that follows a request through HTTP, Kafka, logs and tables."""

from __future__ import annotations

import random
import re

import msgspec

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Trace(msgspec.Struct, frozen=True, gc=False):
    """The trace a piece of work belongs to, and this work's own span."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @property
    def traceparent(self) -> str:
        """The header that hands the trace on."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def trace_id_of(traceparent: str | None) -> str | None:
    """Give the trace id in a header; None when there is none, or the header is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def join(traceparent: str | None) -> Trace:
    """Go on with the caller's trace, or begin one."""
    # Ids need not be hard to guess, and asking the kernel for them would let go of Python's lock.
    drawn = f"{random.getrandbits(192):048x}"
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return Trace(drawn[:32], drawn[32:])
    return Trace(match[1], drawn[32:], match[3])
