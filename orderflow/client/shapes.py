"""What the services answer, as typed values. Times are aware datetimes, money is an exact `Decimal`.

A member that is not known here is left out, so that a service may say more.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (msgspec reads the annotations at run time)
from decimal import Decimal  # noqa: TC003
from typing import Literal

import msgspec

from orderflow.timeline.shown import EventState, StepWord  # noqa: TC001

#: What is true of a write (docs/http.md).
Outcome = Literal["published", "spooled", "refused", "unknown"]


class Item(msgspec.Struct, frozen=True, rename="camel"):
    """One line of an order; ``price`` is that of one piece."""

    item_id: str
    quantity: int
    price: Decimal


class Order(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An order. ``shipping_cost`` is None in the answer to its create: it is the consumer's to add."""

    order_id: str
    customer_id: str
    order_date: datetime
    items: tuple[Item, ...]
    total_amount: Decimal
    shipping_cost: Decimal | None = None
    currency: str
    status: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A write that was taken. Published: ``partition`` and ``offset`` say where. Spooled: ``ahead`` events go first.

    ``order`` is None for an update. ``idempotency_key`` is the one that was sent: a repetition under it is the same
    event.
    """

    order_id: str
    event_id: str
    outcome: Literal["published", "spooled"]
    idempotency_key: str
    partition: int | None = None
    offset: int | None = None
    ahead: int | None = None
    order: Order | None = None


class Step(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One thing that happened to an event. What is not known is None.

    ``author`` is who asked for it, and ``event_id`` the id of the control that did it.
    """

    step: StepWord
    at: datetime | None = None
    trace_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    detail: str | None = None
    author: str | None = None
    event_id: str | None = None


class Event(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An event, or an operator's control about one, and its steps in their sequence. What is not known is None.

    ``status`` is the one that it sets; ``reason`` and ``detail`` are why it stands where it does. ``maybe_on_topic``:
    it is in the outbox and was sent without an acknowledgement, so a copy may be on the topic.
    """

    event_id: str | None = None
    order_id: str | None = None
    kind: Literal["event", "control"]
    type: str | None = None
    status: str | None = None
    state: EventState
    reason: str | None = None
    detail: str | None = None
    trace_id: str | None = None
    maybe_on_topic: bool = False
    epoch: int | None = None
    partition: int | None = None
    offset: int | None = None
    steps: tuple[Step, ...] = ()


class Timeline(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All that is known of an order: its events in the sequence in which they take effect. ``order`` None: no order."""

    order_id: str
    order: Order | None = None
    events: tuple[Event, ...] = ()
