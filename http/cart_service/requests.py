"""Requests -> events: what callers may send, and the identity of what they sent."""

from __future__ import annotations

import hashlib
import struct
import threading
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from orderflow.errors import InvalidBody
from orderflow.events import OrderCreated, StatusChanged, now, random_event_id
from orderflow.idempotency import KEY, KEY_RULE
from orderflow.orders import (
    JSON_ENCODER,
    Currency,
    CustomerId,
    Item,
    Order,
    OrderId,
    Status,
    money_from_cents,
    total,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

#: UUIDv5 namespace of the event ids that follow from an Idempotency-Key.
IDEMPOTENCY = uuid.UUID("b2b7f3c4-8a1e-5f6d-9c3b-2f0d7e4a6c58")

CURRENCIES = tuple(Currency)

Drawn = tuple[int, int, int]

_DRAWN = struct.Struct(">3I")


class CartItem(Item, frozen=True, forbid_unknown_fields=True):
    """An item as a caller gives it: what is not a field of it is a mistake, and not kept."""


class CreateOrder(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of ``POST /create-order``: a number of items to make up, or the items themselves."""

    order_id: OrderId
    items_num: Annotated[int, Meta(ge=1, le=100)] | None = None
    items: Annotated[tuple[CartItem, ...], Meta(min_length=1, max_length=100)] | None = None
    customer_id: CustomerId | None = None
    currency: Currency | None = None


class UpdateOrder(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body of ``PUT /update-order``."""

    order_id: OrderId
    status: Status


#: JSON Schema has no word for "one of the two": of a pair, one is there and not null.
CreateBody = Annotated[
    CreateOrder,
    Meta(
        extra_json_schema={
            "oneOf": [
                {"required": ["itemsNum"], "properties": {"itemsNum": {"type": "integer"}, "items": {"type": "null"}}},
                {"required": ["items"], "properties": {"items": {"type": "array"}, "itemsNum": {"type": "null"}}},
            ]
        },
        examples=[{"orderId": "ord-1", "itemsNum": 2}],
    ),
]
UpdateBody = Annotated[UpdateOrder, Meta(examples=[{"orderId": "ord-1", "status": "shipped"}])]


class FirstMoments:
    """When an event was first asked for, of the last so many that their callers have named. Thread-safe.

    A retry is the same event, so its order must have the same date.
    """

    def __init__(self, at_most: int = 50_000) -> None:
        self._at_most = at_most
        self._moments: OrderedDict[str, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, event_id: str) -> datetime:
        """Give the moment; now, when it is the first time."""
        with self._lock:
            moment = self._moments.setdefault(event_id, now())
            if len(self._moments) > self._at_most:
                self._moments.popitem(last=False)
            return moment


def created(request: CreateOrder, idempotency_key: str | None, moments: FirstMoments) -> OrderCreated:
    """Make the event that a create asks for.

    Raises:
        InvalidBody: the body or the key is not valid.

    """
    if (request.items is None) == (request.items_num is None):
        problem = "give either itemsNum or items"
        raise InvalidBody(
            "invalid-body",
            f"The body is not valid. itemsNum, items: {problem}",
            {"itemsNum": problem, "items": problem},
        )
    event_id = _event_id("create-order", idempotency_key, request)
    # What is made up follows from the id: a retry must make up the same order.
    (customer, currency, _), *drawn = _draw(event_id, 1 + (request.items_num or 0))
    items: tuple[Item, ...] = request.items or make_up_items(drawn)
    order = Order(
        order_id=request.order_id,
        customer_id=request.customer_id or f"customer-{customer % 9_999 + 1}",
        order_date=now() if idempotency_key is None else moments.of(event_id),
        items=items,
        total_amount=total(items),
        currency=request.currency or CURRENCIES[currency % len(CURRENCIES)],
    )
    return OrderCreated(order_id=order.order_id, event_id=event_id, occurred_at=order.order_date, order=order)


def changed(request: UpdateOrder, idempotency_key: str | None) -> StatusChanged:
    """Make the event that an update asks for.

    Raises:
        InvalidBody: the key is not valid.

    """
    event_id = _event_id("update-order", idempotency_key, request)
    return StatusChanged(order_id=request.order_id, event_id=event_id, occurred_at=now(), status=request.status)


def make_up_items(drawn: Sequence[Drawn]) -> tuple[Item, ...]:
    """Make up a cart of numbers: quantities from 1 to 10, prices from 1.00 to 100.00."""
    return tuple(
        Item(f"item-{item % 9_999 + 1:04d}", quantity % 10 + 1, money_from_cents(price % 9_901 + 100))
        for item, quantity, price in drawn
    )


def _draw(event_id: str, times: int) -> list[Drawn]:
    """Draw numbers that follow from the event's id. Seeding a generator with it would take ten times as long."""
    return list(_DRAWN.iter_unpack(hashlib.shake_128(event_id.encode()).digest(_DRAWN.size * times)))


def _event_id(route: str, idempotency_key: str | None, request: CreateOrder | UpdateOrder) -> str:
    """Name the event: at random, or by the caller's key and the body, so that a retry is the same event.

    The body is part of it: another body under the same key is another event, and never passes for the first.
    """
    if idempotency_key is None:
        return random_event_id()
    if not KEY.fullmatch(idempotency_key):
        raise InvalidBody("invalid-idempotency-key", f"The Idempotency-Key must be {KEY_RULE}.")
    canonical = JSON_ENCODER.encode([route, idempotency_key, request])
    return str(uuid.uuid5(IDEMPOTENCY, canonical.decode()))
