"""The order service: its routes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import bottle
import msgspec

from order_service.alerts import AlertDesk
from order_service.skipped import SkippedMessages
from orderflow import order_shown
from orderflow.errors import StoreError
from orderflow.process import read_heartbeat
from orderflow.store.reader import WALK_PAGE, Reader
from orderflow.wsgi import parameters
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.service import RETRY_AFTER, NotReady, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings

PROGRAM = "order-service"
CONSUMER = "order-consumer"

_encoder = msgspec.json.Encoder()


def make_app(settings: Settings) -> Service:
    """Build the service. The projection is opened by the first request that reads it."""
    reader = Reader(settings)
    orders = Orders(settings, reader)
    service = Service(PROGRAM, settings, {"store": orders.check_store, "order-consumer": orders.check_consumer})
    service.router.get("/order-details", callback=service.handler(orders.order_details))
    service.router.get("/getAllOrderIdsFromTopic", callback=service.handler(orders.order_ids))
    skipped = SkippedMessages(settings, reader)
    service.router.get("/skipped-messages", callback=service.handler(skipped.list))
    service.router.get("/skipped-messages/<id>", callback=service.handler(skipped.show))
    service.router.post("/skipped-messages/<id>/redrive", callback=service.handler(skipped.redrive))
    service.router.post("/skipped-messages/<id>/discard", callback=service.handler(skipped.discard))
    alerts = AlertDesk(settings)
    service.router.get("/alerts", callback=service.handler(alerts.list))
    service.router.post("/alerts/<id>/acknowledge", callback=service.handler(alerts.acknowledge))
    service.metrics.gauge(
        "orderflow_alerts_open",
        "Open alerts; none at all while they cannot be read.",
        ("cause", "severity"),
        alerts.open_now,
    )
    return service


class Orders:
    """The handlers."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._settings = settings
        self._reader = reader
        # A caller that reads all ids slowly holds a thread; half of them are left for the others.
        self._walks_max = max(1, settings.order_threads // 2)
        self._walks = threading.BoundedSemaphore(self._walks_max)

    def order_details(self) -> bytes:
        """Answer ``GET /order-details?orderId=``."""
        order_id = parameters.required("orderId")
        bottle.request.environ["orderflow.log"] = {"order_id": order_id[:200]}
        order = self._reader.order(order_id)
        if order is None:
            raise Problem(
                404, "unknown-order", f"There is no order {order_id[:200]!r}, or its create was not applied yet."
            )
        return _encoder.encode({"order": order_shown.shown(order)})

    def order_ids(self) -> bytes | Iterator[bytes]:
        """Answer ``GET /getAllOrderIdsFromTopic?topic=``: all ids, or a page of them."""
        topic = parameters.required("topic")
        if topic != self._settings.topic:
            raise Problem(
                404,
                "unknown-topic",
                f"There is no topic {topic[:200]!r} here; this service reads {self._settings.topic!r}.",
            )
        if "limit" in bottle.request.query or "cursor" in bottle.request.query:
            return self._page(topic)
        if not self._walks.acquire(blocking=False):
            detail = f"{self._walks_max} callers read all ids already; ask again, or for a page with limit."
            raise Problem(503, "too-many-walks", detail, RETRY_AFTER)
        try:
            pages = self._reader.walk_order_ids()
            # The first page is read here, so that a store that cannot be read is still a 503.
            return self._stream(next(pages, []), pages)
        except BaseException:
            self._walks.release()
            raise

    def _stream(self, first: list[str], pages: Iterator[list[str]]) -> Iterator[bytes]:
        """Write a JSON list page by page: memory stays flat, however many ids there are."""
        try:
            yield _encoder.encode(first)[:-1]
            for page in pages:
                yield b"," + _encoder.encode(page)[1:-1]
            yield b"]"
        finally:
            self._walks.release()

    def _page(self, topic: str) -> bytes:
        limit = parameters.number("limit", 1_000, 1, WALK_PAGE)
        cursor = parameters.number("cursor", 0, 0, 2**63 - 1)
        rows = self._reader.order_ids(cursor, limit)
        if len(rows) == limit:
            parameters.point_to_next("/getAllOrderIdsFromTopic", topic=topic, limit=limit, cursor=rows[-1][0])
        return _encoder.encode([order_id for _, order_id in rows])

    # Readiness.

    def check_store(self) -> tuple[bool, str]:
        """Ready while the projection can be read."""
        try:
            self._reader.check()
        except StoreError as error:
            raise NotReady(str(error)) from error
        return True, "The projection can be read."

    def check_consumer(self) -> tuple[bool, str]:
        """Degraded while nobody applies what is published, or the consumer waits for something."""
        beat = read_heartbeat(self._settings, CONSUMER)
        if beat is None or beat.age_s() > self._settings.heartbeat_stale_s:
            return False, f"The {CONSUMER} does not beat: what is published is not applied."
        if beat.waits_for is not None or beat.state != "running":
            waits = f", and waits for {beat.waits_for}" if beat.waits_for else ""
            return False, f"The {CONSUMER} is {beat.state}{waits}."
        return True, f"The {CONSUMER} applies what is published."
