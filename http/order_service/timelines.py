"""``/order-timeline`` and ``/events``: what became of an order's events, step by step."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import bottle
import msgspec
from msgspec import UNSET, Meta
from msgspec import UnsetType as Unset

from order_service.answers import OneEvent, OrderTimeline
from orderflow import order_shown
from orderflow.errors import AmbiguousEvent, SearchTooLong
from orderflow.events import EventId  # noqa: TC001 (msgspec reads the annotations at run time)
from orderflow.store.rows import parse_place_id, place_id
from orderflow.timeline.desk import START
from orderflow.wsgi.parameters import Limit, point_to_next
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem
from orderflow.wsgi.routes import Link, Route

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.timeline.desk import Timeline
    from orderflow.timeline.shown import EventShown

_encoder = msgspec.json.Encoder()

OrderId = Annotated[str, Meta(min_length=1, description="The order's id.", examples=["ord-1"])]
PlaceId = Annotated[
    str, Meta(pattern=r"^\d{1,18}(-\d{1,18}){2}$", description="From the `Link` header of the page before.")
]


class TimelineQuery(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of ``GET /order-timeline``."""

    order_id: OrderId
    limit: Limit = 200
    cursor: PlaceId | Unset = UNSET


class EventQuery(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of ``GET /events/<eventId>``."""

    event_id: EventId
    order_id: Annotated[str, Meta(min_length=1, description="Its order: with it the answer is quick.")] | Unset = UNSET


class Timelines:
    """The handlers."""

    def __init__(self, settings: Settings, reader: Reader, timeline: Timeline) -> None:
        self._reader = reader
        self._timeline = timeline
        # To look for an event whose order is not given takes time; some threads are left for what is quick.
        self._searches = threading.BoundedSemaphore(max(1, settings.order_threads // 8))

    def routes(self) -> tuple[Route, ...]:
        """Declare the routes."""
        return (
            Route(
                path="/order-timeline",
                handler=self.order_timeline,
                name="orderTimeline",
                tag="orders",
                summary="Every step of one order",
                parameters=TimelineQuery,
                answers={200: OrderTimeline},
                problems=(Kind.UNKNOWN_ORDER, Kind.STORE_UNAVAILABLE),
                links=(Link("event", {"eventId": "$response.body#/events/0/eventId"}),),
            ),
            Route(
                path="/events/<eventId>",
                handler=self.event,
                name="event",
                tag="orders",
                summary="The state of one event",
                parameters=EventQuery,
                answers={200: OneEvent},
                problems=(Kind.UNKNOWN_EVENT, Kind.AMBIGUOUS_EVENT, Kind.SEARCH_TOO_LONG, Kind.STORE_UNAVAILABLE),
            ),
        )

    def order_timeline(self, query: TimelineQuery) -> bytes:
        """Answer ``GET /order-timeline``."""
        order_id = query.order_id
        bottle.request.environ["orderflow.log"] = {"order_id": order_id[:200]}
        after = START if query.cursor is UNSET else parse_place_id(query.cursor) or START
        page = self._timeline.of_order(order_id, after, query.limit)
        order = self._reader.order(order_id)
        if not page.events and order is None and after == START:
            detail = f"Nothing is known of an order {order_id[:200]!r}; its events may not be read yet."
            raise Problem(Kind.UNKNOWN_ORDER, detail)
        if page.full and page.last is not None:
            point_to_next("/order-timeline", orderId=order_id, limit=query.limit, cursor=place_id(page.last))
        answer: OrderTimeline = {
            "orderId": order_id,
            "order": None if order is None else order_shown.shown(order),
            "events": page.events,
        }
        return _encoder.encode(answer)

    def event(self, query: EventQuery) -> bytes:
        """Answer ``GET /events/<eventId>``."""
        event_id = query.event_id
        order_id = None if query.order_id is UNSET else query.order_id
        bottle.request.environ["orderflow.log"] = {"event_id": event_id}
        try:
            event = self._timeline.of_event(event_id, order_id) if order_id else self._search(event_id)
        except AmbiguousEvent as error:
            raise Problem(Kind.AMBIGUOUS_EVENT, str(error)) from error
        except SearchTooLong as error:
            raise Problem(Kind.SEARCH_TOO_LONG, str(error), RETRY_AFTER) from error
        if event is None:
            detail = f"Nothing is known of an event {event_id}: it may be published and not read yet, or never was."
            raise Problem(Kind.UNKNOWN_EVENT, detail)
        answer: OneEvent = {"event": event}
        return _encoder.encode(answer)

    def _search(self, event_id: str) -> EventShown | None:
        if not self._searches.acquire(blocking=False):
            raise SearchTooLong("Too many events are looked for already; ask again, or name the order with orderId.")
        try:
            return self._timeline.of_event(event_id)
        finally:
            self._searches.release()
