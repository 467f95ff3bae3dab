"""What is published, and what can come of it. Plain values, no client."""

from __future__ import annotations

import msgspec

from orderflow.errors import OrderflowError  # noqa: TC001 (msgspec reads the annotations at run time)


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is to be published: one event of one order, or what else is written for one. None is null on the wire.

    Its key decides the partition where none is given; so one without a key must name its partition.
    """

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    order_id: str
    event_id: str
    trace_id: str = ""
    partition: int | None = None


class Published(msgspec.Struct, frozen=True, gc=False):
    """Kafka acknowledged the event with acks=all."""

    partition: int
    offset: int


class Spooled(msgspec.Struct, frozen=True, gc=False):
    """The event is on disk under its id, and will be published in order; so many wait in front of it."""

    ahead: int


class Refused(msgspec.Struct, frozen=True):
    """The event will never appear on the topic."""

    error: OrderflowError


class Unknown(msgspec.Struct, frozen=True):
    """The event was sent without an acknowledgement, and could not be spooled: it may be on the topic, now or later."""

    error: OrderflowError


Outcome = Published | Spooled | Refused | Unknown
