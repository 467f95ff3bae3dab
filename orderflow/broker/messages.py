"""What is published, and what can come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orderflow.errors import BrokerError


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published: one event of one order. Its key decides the partition."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    order_id: str
    event_id: str
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """Kafka acknowledged the event with acks=all."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The event will never appear on the topic."""

    error: BrokerError


@dataclass(frozen=True, slots=True)
class Unknown:
    """The event was sent without an acknowledgement: it may be on the topic, or come to it later."""

    error: BrokerError


Outcome = Published | Refused | Unknown
