"""Messages and records as tests make them."""

from __future__ import annotations

import json
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, KafkaProducer

from orderflow.messages import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.settings import Settings


def created(order_id: str, **change: object) -> dict[str, Any]:
    """A create as it is on the wire, with an event id of its own where ``change`` has none."""
    order = {
        "orderId": order_id, "customerId": "c", "orderDate": "2026-01-02T03:04:05Z", "totalAmount": 20.5,
        "items": [{"itemId": "i", "quantity": 2, "price": 10.25}], "currency": "EUR", "status": "new",
    }  # fmt: skip
    event = {"type": "order.created", "order_id": order_id, "event_id": str(uuid.uuid4()), "order": order}
    return event | change


def changed(order_id: str, status: str = "shipped", **change: object) -> dict[str, Any]:
    """A status update as it is on the wire; its event id as above."""
    event = {"type": "order.status_changed", "order_id": order_id, "event_id": str(uuid.uuid4()), "status": status}
    return event | change


def message(order_id: str, status: str = "pending", *, padding: int = 0) -> Message:
    """A status update, as the cart service would hand it to the publisher."""
    event = changed(order_id, status)
    event_id = event["event_id"]
    value = json.dumps(event).encode() + b" " * padding
    return Message(order_id.encode(), value, (("ce_id", event_id.encode()),), order_id, event_id)


def produce(settings: Settings, records: Sequence[dict[str, Any]], **options: Any) -> list[tuple[int, int]]:
    """Send records with a plain producer, and give their places. A record holds arguments of ``send``."""
    with closing(KafkaProducer(bootstrap_servers=settings.bootstrap, metrics_enabled=False, **options)) as producer:
        sent = [producer.send(settings.topic, **record).get(timeout=10) for record in records]
    return [(metadata.partition, metadata.offset) for metadata in sent]


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=settings.bootstrap)) as client:
        yield client


class NotUtf8(str):
    """A header's name that goes over the wire as bytes which are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe-name"
