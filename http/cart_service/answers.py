"""What the cart service answers: what is true of a write's event, and what is in the outbox."""

from __future__ import annotations

from typing import Generic, Literal, TypedDict, TypeVar

from orderflow.orders import Order, OrderId, Status
from orderflow.shapes import Time
from orderflow.store.outbox_shown import EntryShown

OrderT = TypeVar("OrderT")


class OrderUpdate(TypedDict):
    """What an update sets."""

    orderId: OrderId
    status: Status


class Published(TypedDict, Generic[OrderT]):
    """Kafka has acknowledged the event: it is on the topic, there."""

    order: OrderT
    eventId: str
    outcome: Literal["published"]
    partition: int
    offset: int


class Spooled(TypedDict, Generic[OrderT]):
    """The event is on this machine's disk, and is sent by itself. `ahead` is how many wait in front of it."""

    order: OrderT
    eventId: str
    outcome: Literal["spooled"]
    ahead: int


class CreatePublished(Published[Order]):
    """The create is on the topic."""


class CreateSpooled(Spooled[Order]):
    """The create is kept, and is sent by itself."""


class UpdatePublished(Published[OrderUpdate]):
    """The update is on the topic."""


class UpdateSpooled(Spooled[OrderUpdate]):
    """The update is kept, and is sent by itself."""


class OutboxPage(TypedDict):
    """What was taken and is not on the topic yet: all of it in figures, and a page of its rows."""

    waiting: int
    held: int
    bytes: int
    oldestSpooledAt: Time | None
    maxEvents: int
    maxBytes: int
    events: list[EntryShown]
