"""``/order-details``, ``/orders`` and ``/getAllOrderIdsFromTopic``: the orders as they are applied."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import bottle
import msgspec
from msgspec import UNSET, Meta
from msgspec import UnsetType as Unset

from order_service import own_writes
from order_service.answers import OrderDetails, OrderIds, OrderList
from orderflow import order_shown
from orderflow.events import EventId  # noqa: TC001 (msgspec reads the annotations at run time)
from orderflow.orders import Status  # noqa: TC001 (as above)
from orderflow.store.reader import WALK_PAGE
from orderflow.wsgi.parameters import NUMBER_MAX, After, Before, Limit, point_to_next
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem
from orderflow.wsgi.routes import Link, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from order_service.own_writes import OwnWrites
    from order_service.searches import Searches
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.wsgi.routes import Body

_encoder = msgspec.json.Encoder()

OrderId = Annotated[str, Meta(min_length=1, description="The order's id.", examples=["ord-1"])]


class DetailsQuery(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of ``GET /order-details``."""

    order_id: OrderId
    after: Annotated[EventId, Meta(description="Wait until this event is applied.")] | Unset = UNSET
    wait: Annotated[float, Meta(ge=0, le=30, description="So many seconds at most; nothing without `after`.")] = 2.0


class OrdersQuery(msgspec.Struct, frozen=True):
    """The parameters of ``GET /orders``."""

    status: Annotated[Status, Meta(description="Only orders with this status.")] | Unset = UNSET
    limit: Limit = 100
    cursor: Before = NUMBER_MAX


class IdsQuery(msgspec.Struct, frozen=True):
    """The parameters of ``GET /getAllOrderIdsFromTopic``. With ``limit`` or ``cursor`` the answer is a page."""

    topic: Annotated[
        str, Meta(min_length=1, description="The topic that this system reads.", examples=["order_events"])
    ]
    limit: Annotated[int, Meta(ge=1, le=WALK_PAGE, description="With it, a page.")] | Unset = UNSET
    cursor: After | Unset = UNSET


class Orders:
    """The handlers."""

    def __init__(self, settings: Settings, reader: Reader, writes: OwnWrites, searches: Searches) -> None:
        self._settings = settings
        self._reader = reader
        self._writes = writes
        self._searches = searches
        # A caller that reads all ids slowly holds a thread.
        self._walks_max = settings.order_threads // 8
        self._walks = threading.BoundedSemaphore(self._walks_max)

    def routes(self) -> tuple[Route, ...]:
        """Declare the routes."""
        return (
            Route(
                path="/order-details",
                handler=self.order_details,
                name="orderDetails",
                tag="orders",
                summary="One order",
                parameters=DetailsQuery,
                answers={200: OrderDetails},
                problems=(Kind.UNKNOWN_ORDER, *own_writes.PROBLEMS),
                links=(Link("orderTimeline", {"orderId": "$response.body#/order/orderId"}),),
            ),
            Route(
                path="/orders",
                handler=self.orders,
                name="orders",
                tag="orders",
                summary="The orders, newest first",
                parameters=OrdersQuery,
                answers={200: OrderList},
                problems=(Kind.SEARCH_TOO_LONG, Kind.STORE_UNAVAILABLE),
                links=(Link("orderDetails", {"orderId": "$response.body#/orders/0/orderId"}),),
            ),
            Route(
                path="/getAllOrderIdsFromTopic",
                handler=self.order_ids,
                name="orderIds",
                tag="orders",
                summary="The ids of the orders that exist",
                parameters=IdsQuery,
                answers={200: OrderIds},
                problems=(Kind.UNKNOWN_TOPIC, Kind.TOO_MANY_WALKS, Kind.STORE_UNAVAILABLE),
                links=(Link("orderDetails", {"orderId": "$response.body#/0"}),),
            ),
        )

    def order_details(self, query: DetailsQuery) -> bytes:
        """Answer ``GET /order-details``."""
        order_id = query.order_id
        bottle.request.environ["orderflow.log"] = {"order_id": order_id[:200]}
        if query.after is not UNSET:
            self._writes.wait_for(order_id, query.after, query.wait)
        order = self._reader.order(order_id)
        if order is None:
            raise Problem(
                Kind.UNKNOWN_ORDER, f"There is no order {order_id[:200]!r}, or its create was not applied yet."
            )
        answer: OrderDetails = {"order": order_shown.shown(order)}
        return _encoder.encode(answer)

    def orders(self, query: OrdersQuery) -> bytes:
        """Answer ``GET /orders``."""
        if query.status is UNSET:
            rows = self._reader.orders(None, query.cursor, query.limit)
        else:  # An order of that status may be far away.
            with self._searches.one("ask without status"):
                rows = self._reader.orders(query.status, query.cursor, query.limit)
        if len(rows) == query.limit:
            point_to_next("/orders", status=query.status, limit=query.limit, cursor=rows[-1][0])
        answer: OrderList = {"orders": [order_shown.shown(order) for _, order in rows]}
        return _encoder.encode(answer)

    def order_ids(self, query: IdsQuery) -> Body:
        """Answer ``GET /getAllOrderIdsFromTopic``: all ids, or a page of them."""
        if query.topic != self._settings.topic:
            raise Problem(
                Kind.UNKNOWN_TOPIC,
                f"There is no topic {query.topic[:200]!r} here; this service reads {self._settings.topic!r}.",
            )
        if query.limit is not UNSET or query.cursor is not UNSET:
            return self._page(query.topic, query.limit or 1_000, query.cursor or 0)
        if not self._walks.acquire(blocking=False):
            detail = f"{self._walks_max} callers read all ids already; ask again, or for a page with limit."
            raise Problem(Kind.TOO_MANY_WALKS, detail, RETRY_AFTER)
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

    def _page(self, topic: str, limit: int, cursor: int) -> bytes:
        rows = self._reader.order_ids(cursor, limit)
        if len(rows) == limit:
            point_to_next("/getAllOrderIdsFromTopic", topic=topic, limit=limit, cursor=rows[-1][0])
        ids: OrderIds = [order_id for _, order_id in rows]
        return _encoder.encode(ids)
