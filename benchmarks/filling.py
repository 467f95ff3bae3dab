"""A topic that is filled beforehand: half creates with two items, half updates, as the cart service writes them."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

from orderflow import events
from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.events import Event, OrderCreated, StatusChanged
from orderflow.orders import Currency, Item, Money, Order, Status, total

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings

#: Records that are sent before their acknowledgements are awaited.
CHUNK = 5_000

#: An order's update comes this many orders after its create.
DISTANCE = 100

ITEMS = (Item("item-0001", 2, Money("10.10")), Item("item-0002", 1, Money("3.05")))


def order_id(number: int) -> str:
    """Name an order of the filling."""
    return f"fill-{number:010d}"


def records(orders: int) -> Iterator[RawRecord]:
    """Give two records an order: its create and, some orders later, its update."""
    for number in range(orders + DISTANCE):
        if number < orders:
            yield _record(_created(order_id(number)))
        if number >= DISTANCE:
            yield _record(_updated(order_id(number - DISTANCE)))


def fill(settings: Settings, orders: int) -> None:
    """Put the records on the topic."""
    with RawProducer(settings, "benchmark") as producer:
        source = records(orders)
        while chunk := list(itertools.islice(source, CHUNK)):
            producer.send(chunk)


def _created(name: str) -> OrderCreated:
    at = events.now()
    order = Order(name, "customer-1", at, ITEMS, total(ITEMS), Currency.EUR)
    return OrderCreated(order_id=name, event_id=str(uuid.uuid4()), occurred_at=at, order=order)


def _updated(name: str) -> StatusChanged:
    return StatusChanged(order_id=name, event_id=str(uuid.uuid4()), occurred_at=events.now(), status=Status.SHIPPED)


def _record(event: Event) -> RawRecord:
    key = event.order_id.encode()
    headers = (
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("ce_specversion", b"1.0"),
        ("ce_id", (event.event_id or "").encode()),
        ("ce_source", b"/orderflow/benchmark"),
        ("ce_type", events.TYPES[type(event)].encode()),
        ("ce_subject", key),
        ("ce_time", str(event.occurred_at).encode()),
        ("content-type", b"application/json"),
    )
    return RawRecord(events.encode(event), key, headers)
