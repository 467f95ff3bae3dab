"""The cart service: its routes, and the answer to what came of a publish."""

from __future__ import annotations

from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, NamedTuple

import bottle

from cart_service.kafka_watch import KafkaWatch
from cart_service.outbox_view import OutboxView
from cart_service.outbox_watch import OutboxWatch
from cart_service.requests import FirstMoments, parse_create, parse_update
from orderflow import events
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import Producer
from orderflow.envelope import CART_SERVICE, event_message
from orderflow.errors import NotAccepted, Rejected, StoreError
from orderflow.events import Event, OrderCreated
from orderflow.messages import Published, Refused, Spooled, Unknown
from orderflow.orders import JSON_ENCODER
from orderflow.publishing.publisher import Publisher
from orderflow.publishing.spool import Spool
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.wsgi.guards import BodyReader
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.service import RETRY_AFTER, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.settings import Settings

PROGRAM = "cart-service"


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
    service = Service(PROGRAM, settings, {"kafka": parts.kafka.check, "outbox": parts.outbox_watch.check})
    cart = Cart(settings, parts, service)
    view = OutboxView(settings, parts.outbox_watch.outbox, OutboxDesk(settings))
    service.router.post("/create-order", callback=service.handler(cart.create_order))
    service.router.put("/update-order", callback=service.handler(cart.update_order))
    service.router.get("/outbox", callback=service.handler(view.show))
    gauge = service.metrics.gauge
    gauge("orderflow_breaker_state", "1 for the breaker's state.", ("state",), parts.outbox_watch.breaker)
    gauge("orderflow_outbox_events", "Events that wait for Kafka, or are held.", ("state",), parts.outbox_watch.events)
    gauge("orderflow_outbox_bytes", "What those events take.", (), parts.outbox_watch.undelivered_bytes)
    return service


class Cart:
    """The handlers."""

    def __init__(self, settings: Settings, parts: Parts, service: Service) -> None:
        self._publisher = parts.publisher
        self._kafka = parts.kafka
        self._alerts = parts.alerts
        self._moments = FirstMoments()
        # A caller that sends its body slowly holds a thread: some are left for those at work, and for probes.
        at_once = settings.cart_threads - settings.publish_waiting_max - 8
        self._bodies = BodyReader(settings.http_body_limit_bytes, max(1, at_once))
        self._outcomes = service.metrics.counter(
            "orderflow_events_published_total", "Events by what came of publishing them.", ("type", "outcome")
        )

    def create_order(self) -> bytes:
        """Answer ``POST /create-order``."""
        event = self._parse(lambda body, key: parse_create(body, key, self._moments))
        assert isinstance(event, OrderCreated)  # noqa: S101 (what parse_create gives)
        return self._publish(event, event.order, 201)

    def update_order(self) -> bytes:
        """Answer ``PUT /update-order``."""
        event = self._parse(parse_update)
        assert not isinstance(event, OrderCreated)  # noqa: S101 (what parse_update gives)
        return self._publish(event, {"orderId": event.order_id, "status": event.status}, 200)

    def _parse(self, parse: Callable[[bytes, str | None], Event]) -> Event:
        environ = bottle.request.environ
        body = self._bodies.read(environ)
        return parse(body, environ.get("HTTP_IDEMPOTENCY_KEY"))

    def _publish(self, event: Event, order: object, created: int) -> bytes:
        environ = bottle.request.environ
        refusal = self._kafka.refusal()
        message = event_message(event, environ["orderflow.trace"], CART_SERVICE)
        outcome = self._publisher.publish(message) if refusal is None else Refused(refusal)
        word = type(outcome).__name__.lower()
        self._outcomes[events.TYPES[type(event)], word].inc()
        environ["orderflow.log"] = {"order_id": event.order_id, "event_id": event.event_id, "outcome": word}
        answer: dict[str, Any] = {"order": order, "eventId": event.event_id, "outcome": word}
        if isinstance(outcome, Published):
            bottle.response.status = created
            answer |= {"partition": outcome.partition, "offset": outcome.offset}
        elif isinstance(outcome, Spooled):
            bottle.response.status = 202
            answer["ahead"] = outcome.ahead
        else:
            if isinstance(outcome.error, Rejected):
                self._alerts.open(Cause.EVENT_REJECTED, f"Event {event.event_id}: {outcome.error}", 1)
            raise _problem(event, outcome)
        return JSON_ENCODER.encode(answer)


def _problem(event: Event, outcome: Refused | Unknown) -> Problem:
    """Say what is true of an event that was neither acknowledged nor stored."""
    error = outcome.error
    members: dict[str, Any] = {"outcome": type(outcome).__name__.lower(), "eventId": event.event_id}
    if isinstance(outcome, Unknown):
        detail = (
            "The event was sent and Kafka did not acknowledge it: it may be on the topic. "
            f"A retry with the same Idempotency-Key is safe. {error}"
        )
        return Problem(503, "outcome-unknown", detail, RETRY_AFTER, **members)
    if isinstance(error, Rejected):
        detail = f"Kafka refuses this event, and will refuse it again; it was not published. {error}"
        return Problem(503, "event-rejected", detail, **members)
    detail = f"The event was not taken, and nothing is published for this request; send it again later. {error}"
    if isinstance(error, NotAccepted):
        return Problem(503, "not-accepted", detail, RETRY_AFTER, **members)
    if isinstance(error, StoreError):
        return Problem(503, "outbox-unavailable", detail, RETRY_AFTER, **members)
    return Problem(503, "kafka-unavailable", detail, RETRY_AFTER, **members)
