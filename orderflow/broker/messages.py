"""What is published, and what can come of it."""

from __future__ import annotations

import msgspec

from orderflow.errors import BrokerError  # noqa: TC001 (msgspec reads the annotations at run time)


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is to be published: one event of one order. Its key decides the partition."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    order_id: str
    event_id: str
    trace_id: str = ""


class Published(msgspec.Struct, frozen=True, gc=False):
    """Kafka acknowledged the event with acks=all."""

    partition: int
    offset: int


class Refused(msgspec.Struct, frozen=True):
    """The event will never appear on the topic."""

    error: BrokerError


class Unknown(msgspec.Struct, frozen=True):
    """The event was sent without an acknowledgement: it may be on the topic, or come to it later."""

    error: BrokerError


Outcome = Published | Refused | Unknown
