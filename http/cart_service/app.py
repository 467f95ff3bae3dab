"""The cart service: its routes, and the answer to what came of a publish."""

from __future__ import annotations

from itertools import product
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import bottle

from cart_service.answers import CreatePublished, CreateSpooled, OrderUpdate, UpdatePublished, UpdateSpooled
from cart_service.kafka_watch import KafkaWatch
from cart_service.outbox_view import OutboxView
from cart_service.outbox_watch import OutboxWatch
from cart_service.requests import CreateBody, CreateOrder, FirstMoments, UpdateBody, UpdateOrder, changed, created
from orderflow import events
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import Producer
from orderflow.envelope import CART_SERVICE, event_message
from orderflow.errors import NotAccepted, Rejected, StoreError
from orderflow.messages import Outcome, Published, Refused, Spooled, Unknown
from orderflow.orders import JSON_ENCODER, Order
from orderflow.publishing.publisher import Publisher
from orderflow.publishing.spool import Spool
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem
from orderflow.wsgi.routes import Link, Route
from orderflow.wsgi.service import Service

if TYPE_CHECKING:
    from cart_service import answers
    from orderflow.events import Event
    from orderflow.settings import Settings

PROGRAM = "cart-service"

#: What may come of a write, in the word of its answer.
OUTCOMES = tuple(kind.__name__.lower() for kind in get_args(Outcome))

#: What a write may be answered with besides the truth of its event.
OF_A_WRITE = (
    Kind.INVALID_IDEMPOTENCY_KEY,
    Kind.KAFKA_UNAVAILABLE,
    Kind.OUTBOX_UNAVAILABLE,
    Kind.NOT_ACCEPTED,
    Kind.EVENT_REJECTED,
    Kind.OUTCOME_UNKNOWN,
)


def make_app(settings: Settings) -> Service:
    """Build the service and start its threads. Nothing waits for Kafka here."""
    parts = Parts.of(settings)
    # Runs at the end of a process that multiprocessing has started too; atexit's functions do not.
    Finalize(None, parts.alerts.close, exitpriority=1)
    parts.outbox_watch.start()
    parts.kafka.start()
    return make_service(settings, parts)


class Parts(NamedTuple):
    """What the service is made of."""

    publisher: Publisher
    kafka: KafkaWatch
    outbox_watch: OutboxWatch
    alerts: AlertBook

    @classmethod
    def of(cls, settings: Settings) -> Parts:
        """Build them; nothing is opened or started."""
        alerts = AlertBook(settings, PROGRAM)
        spool = Spool(Outbox(settings))
        publisher = Publisher(settings, Producer(settings, PROGRAM), spool)
        kafka = KafkaWatch(settings, PROGRAM, publisher, alerts)
        return cls(publisher, kafka, OutboxWatch(settings, publisher, spool, kafka, alerts), alerts)


def make_service(settings: Settings, parts: Parts) -> Service:
    """Tie the routes to the parts."""
    checks = {"kafka": parts.kafka.check, "outbox": parts.outbox_watch.check}
    at_once = settings.cart_threads - settings.publish_waiting_max - 8
    service = Service(PROGRAM, settings, checks, bodies_at_once=at_once)
    cart = Cart(parts, service)
    view = OutboxView(settings, parts.outbox_watch.outbox, OutboxDesk(settings))
    for route in (*cart.routes(), *view.routes()):
        service.add(route)
    gauge = service.metrics.gauge
    gauge("orderflow_breaker_state", "1 for the breaker's state.", ("state",), parts.outbox_watch.breaker)
    gauge("orderflow_outbox_events", "Events that wait for Kafka, or are held.", ("state",), parts.outbox_watch.events)
    gauge("orderflow_outbox_bytes", "What those events take.", (), parts.outbox_watch.undelivered_bytes)
    oldest = parts.outbox_watch.oldest_age_s
    gauge("orderflow_outbox_oldest_age_seconds", "How long the oldest waits, or is held.", ("state",), oldest)
    retries = parts.outbox_watch.retries
    service.metrics.counted("orderflow_publish_retries_total", "Groups of events that were sent again.", (), retries)
    return service


class Cart:
    """The handlers."""

    def __init__(self, parts: Parts, service: Service) -> None:
        self._publisher = parts.publisher
        self._kafka = parts.kafka
        self._alerts = parts.alerts
        self._moments = FirstMoments()
        self._outcomes = service.metrics.counter(
            "orderflow_events_published_total", "Events by what came of publishing them.", ("type", "outcome")
        )
        self._outcomes.begin(product(events.TYPES.values(), OUTCOMES))

    def routes(self) -> tuple[Route, Route]:
        """Declare the routes."""
        update = Link("updateOrder", body={"orderId": "$response.body#/order/orderId", "status": "shipped"})
        outbox = Link("outbox", description="Where it waits, if it was spooled.")
        return (
            Route(
                method="POST",
                path="/create-order",
                handler=self.create_order,
                name="createOrder",
                tag="orders",
                summary="Create an order",
                description="Either `itemsNum`, and the service makes up a cart of that many items, or `items`.",
                body=CreateBody,
                answers={201: CreatePublished, 202: CreateSpooled},
                problems=OF_A_WRITE,
                idempotent=True,
                links=(update, outbox),
            ),
            Route(
                method="PUT",
                path="/update-order",
                handler=self.update_order,
                name="updateOrder",
                tag="orders",
                summary="Set an order's status",
                description="Any status may follow any other. Whether there is such an order is not known here.",
                body=UpdateBody,
                answers={200: UpdatePublished, 202: UpdateSpooled},
                problems=OF_A_WRITE,
                idempotent=True,
                links=(update, outbox),
            ),
        )

    def create_order(self, body: CreateOrder) -> bytes:
        """Answer ``POST /create-order``."""
        event = created(body, _key(), self._moments)
        return self._publish(event, event.order, 201)

    def update_order(self, body: UpdateOrder) -> bytes:
        """Answer ``PUT /update-order``."""
        event = changed(body, _key())
        return self._publish(event, {"orderId": event.order_id, "status": event.status}, 200)

    def _publish(self, event: Event, order: Order | OrderUpdate, created: int) -> bytes:
        environ = bottle.request.environ
        refusal = self._kafka.refusal()
        message = event_message(event, environ["orderflow.trace"], CART_SERVICE)
        outcome = self._publisher.publish(message) if refusal is None else Refused(refusal)
        word = type(outcome).__name__.lower()
        self._outcomes[events.TYPES[type(event)], word].inc()
        environ["orderflow.log"] = {"order_id": event.order_id, "event_id": event.event_id, "outcome": word}
        event_id = str(event.event_id)
        answer: answers.Published[Order | OrderUpdate] | answers.Spooled[Order | OrderUpdate]
        if isinstance(outcome, Published):
            bottle.response.status = created
            answer = {
                "order": order,
                "eventId": event_id,
                "outcome": "published",
                "partition": outcome.partition,
                "offset": outcome.offset,
            }
        elif isinstance(outcome, Spooled):
            bottle.response.status = 202
            answer = {"order": order, "eventId": event_id, "outcome": "spooled", "ahead": outcome.ahead}
        else:
            if isinstance(outcome.error, Rejected):
                self._alerts.open(Cause.EVENT_REJECTED, f"Event {event_id}: {outcome.error}", 1)
            raise _problem(event, outcome)
        return JSON_ENCODER.encode(answer)


def _key() -> str | None:
    key: str | None = bottle.request.environ.get("HTTP_IDEMPOTENCY_KEY")
    return key


def _problem(event: Event, outcome: Refused | Unknown) -> Problem:
    """Say what is true of an event that was neither acknowledged nor stored."""
    error = outcome.error
    members: dict[str, Any] = {"outcome": type(outcome).__name__.lower(), "eventId": event.event_id}
    if isinstance(outcome, Unknown):
        detail = (
            "The event was sent and Kafka did not acknowledge it: it may be on the topic. "
            f"A retry with the same Idempotency-Key is safe. {error}"
        )
        return Problem(Kind.OUTCOME_UNKNOWN, detail, RETRY_AFTER, **members)
    if isinstance(error, Rejected):
        detail = f"Kafka refuses this event, and will refuse it again; it was not published. {error}"
        return Problem(Kind.EVENT_REJECTED, detail, **members)
    detail = f"The event was not taken, and nothing is published for this request; send it again later. {error}"
    if isinstance(error, NotAccepted):
        return Problem(Kind.NOT_ACCEPTED, detail, RETRY_AFTER, **members)
    if isinstance(error, StoreError):
        return Problem(Kind.OUTBOX_UNAVAILABLE, detail, RETRY_AFTER, **members)
    return Problem(Kind.KAFKA_UNAVAILABLE, detail, RETRY_AFTER, **members)
