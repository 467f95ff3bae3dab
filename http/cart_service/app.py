"""The cart service: its routes, and the answer to what came of a publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bottle

from cart_service.kafka_watch import KafkaWatch
from cart_service.requests import parse_create, parse_update
from orderflow import events
from orderflow.broker import Message, Outcome, Published, Publisher, Refused
from orderflow.broker.producer import Producer
from orderflow.errors import NotAccepted, Rejected
from orderflow.events import Event, OrderCreated
from orderflow.orders import JSON_ENCODER
from orderflow.wsgi.guards import BodyReader
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.service import RETRY_AFTER, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.settings import Settings
    from orderflow.tracing import Trace

PROGRAM = "cart-service"


def make_app(settings: Settings) -> Service:
    """Build the service with its publisher. Nothing waits for Kafka here."""
    watch = KafkaWatch(settings, PROGRAM)
    watch.start()
    return make_service(settings, Publisher(settings, Producer(settings, PROGRAM)), watch)


def make_service(settings: Settings, publisher: Publisher, watch: KafkaWatch) -> Service:
    """Tie the routes to a publisher."""
    service = Service(PROGRAM, settings, {"kafka": watch.check})
    cart = Cart(settings, publisher, watch, service)
    service.router.post("/create-order", callback=service.handler(cart.create_order))
    service.router.put("/update-order", callback=service.handler(cart.update_order))
    return service


class Cart:
    """The handlers."""

    def __init__(self, settings: Settings, publisher: Publisher, watch: KafkaWatch, service: Service) -> None:
        self._publisher = publisher
        self._watch = watch
        # A caller that sends its body slowly holds a thread: some are left for those at work, and for probes.
        at_once = settings.cart_threads - settings.publish_waiting_max - 8
        self._bodies = BodyReader(settings.http_body_limit_bytes, max(1, at_once))
        self._outcomes = service.metrics.counter(
            "orderflow_events_published_total", "Events by what came of publishing them.", ("type", "outcome")
        )

    def create_order(self) -> bytes:
        """Answer ``POST /create-order``."""
        event = self._parse(parse_create)
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
        outcome: Outcome
        refusal = self._watch.refusal()
        if refusal is None:
            outcome = self._publisher.publish(_message(event, environ["orderflow.trace"]))
            self._watch.tell(outcome)
        else:
            outcome = Refused(refusal)
        word = type(outcome).__name__.lower()
        self._outcomes[events.TYPES[type(event)], word].inc()
        environ["orderflow.log"] = {"order_id": event.order_id, "event_id": event.event_id, "outcome": word}
        if not isinstance(outcome, Published):
            raise _problem(event, outcome)
        bottle.response.status = created
        return JSON_ENCODER.encode(
            {
                "order": order,
                "eventId": event.event_id,
                "outcome": word,
                "partition": outcome.partition,
                "offset": outcome.offset,
            }
        )


def _problem(event: Event, outcome: Outcome) -> Problem:
    """Say what is true of an event that was not acknowledged."""
    assert not isinstance(outcome, Published)  # noqa: S101 (the caller's case)
    members: dict[str, Any] = {"outcome": type(outcome).__name__.lower(), "eventId": event.event_id}
    if isinstance(outcome, Refused):
        if isinstance(outcome.error, NotAccepted):
            detail = f"The event was not taken, and will not be published; send it again later. {outcome.error}"
            return Problem(503, "not-accepted", detail, RETRY_AFTER, **members)
        if isinstance(outcome.error, Rejected):
            detail = f"Kafka refuses this event, and will refuse it again; it was not published. {outcome.error}"
            return Problem(503, "event-rejected", detail, **members)
        detail = f"The event was not published, and will not be; send it again later. {outcome.error}"
        return Problem(503, "kafka-unavailable", detail, RETRY_AFTER, **members)
    detail = (
        "The event was sent and Kafka did not acknowledge it: it may be on the topic. "
        f"A retry with the same Idempotency-Key is safe. {outcome.error}"
    )
    return Problem(503, "outcome-unknown", detail, RETRY_AFTER, **members)


def _message(event: Event, trace: Trace) -> Message:
    """Write the event for Kafka. The headers are for other tools: CloudEvents' binary attributes, and the trace."""
    event_id = event.event_id or ""
    occurred_at = events.wire_time(event.occurred_at) if event.occurred_at else b""
    key = event.order_id.encode()
    headers = (  # the trace in front, where the consumer finds it without reading the others
        ("traceparent", trace.traceparent.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", b"/orderflow/cart-service"),
        ("ce_type", events.TYPES[type(event)].encode()),
        ("ce_subject", key),
        ("ce_time", occurred_at),
        ("content-type", b"application/json"),
    )
    return Message(key, events.encode(event), headers, event.order_id, event_id, trace.trace_id)
