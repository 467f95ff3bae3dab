"""``/order-timeline`` and ``/events``: what became of an order's events, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import bottle
import msgspec
from msgspec import UNSET, Meta
from msgspec import UnsetType as Unset

from order_service.answers import OneEvent, OrderTimeline
from order_service.orders import OrderId  # noqa: TC001 (msgspec reads the annotations)
from orderflow import order_shown
from orderflow.errors import AmbiguousEvent
from orderflow.events import EventId  # noqa: TC001 (msgspec reads the annotations at run time)
from orderflow.store.rows import parse_place_id, place_id
from orderflow.timeline.desk import START
from orderflow.wsgi.parameters import Limit, point_to_next
from orderflow.wsgi.problems import Kind, Problem
from orderflow.wsgi.routes import Link, Route

if TYPE_CHECKING:
    from order_service.searches import Searches
    from orderflow.store.reader import Reader
    from orderflow.timeline.desk import Timeline

_encoder = msgspec.json.Encoder()

PlaceId = Annotated[
    str,
    Meta(pattern=r"^[0-9]{1,18}(-[0-9]{1,18}){2}(?![\s\S])", description="From the `Link` header."),
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

    def __init__(self, reader: Reader, timeline: Timeline, searches: Searches) -> None:
        self._reader = reader
        self._timeline = timeline
        self._searches = searches

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
        after = None if query.cursor is UNSET else parse_place_id(query.cursor)
        page = self._timeline.of_order(order_id, after or START, query.limit)
        order = self._reader.order(order_id)
        if not page.events and order is None and after is None:
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
            if order_id is not None:
                event = self._timeline.of_event(event_id, order_id)
            else:
                with self._searches.one("name the event's order with orderId"):
                    event = self._timeline.of_event(event_id)
        except AmbiguousEvent as error:
            raise Problem(Kind.AMBIGUOUS_EVENT, str(error)) from error
        if event is None:
            detail = f"Nothing is known of an event {event_id}: it may be published and not read yet, or never was."
            raise Problem(Kind.UNKNOWN_EVENT, detail)
        answer: OneEvent = {"event": event}
        return _encoder.encode(answer)
