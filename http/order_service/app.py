"""The order service: its parts, and its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from order_service.alerts import AlertDesk
from order_service.orders import Orders
from order_service.own_writes import OwnWrites
from order_service.readiness import Readiness
from order_service.searches import Searches
from order_service.skipped import SkippedMessages
from order_service.timelines import Timelines
from orderflow.store.reader import Reader
from orderflow.timeline.desk import Timeline
from orderflow.worker_metrics import WorkerMetrics
from orderflow.wsgi.service import Service

if TYPE_CHECKING:
    from orderflow.settings import Settings

PROGRAM = "order-service"


def make_app(settings: Settings) -> Service:
    """Build the service. The projection is opened by the first request that reads it."""
    reader = Reader(settings)
    ready = Readiness(settings, reader)
    checks = {"store": ready.check_store, "order-consumer": ready.check_consumer}
    service = Service(PROGRAM, settings, checks, bodies_at_once=settings.order_threads // 16)
    timeline = Timeline(settings, reader)
    writes = OwnWrites(settings, reader, timeline)
    searches = Searches(settings)
    orders, timelines = Orders(settings, reader, writes, searches), Timelines(reader, timeline, searches)
    skipped, alerts = SkippedMessages(settings, reader), AlertDesk(settings)
    for route in (*orders.routes(), *timelines.routes(), *skipped.routes(), *alerts.routes()):
        service.add(route)
    gauge = service.metrics.gauge
    gauge(
        "orderflow_alerts_open",
        "Open alerts; none at all while they cannot be read.",
        ("cause", "severity"),
        alerts.open_now,
    )
    gauge("orderflow_skips_open", "Skipped messages that are open.", ("reason",), skipped.open_now)
    gauge("orderflow_reads_waiting", "Reads that wait for an event.", (), writes.waiting)
    waited = "Reads that had to wait for an event, by what came of that."
    service.metrics.counted("orderflow_reads_waited", waited, ("outcome",), writes.waited)
    service.metrics.registry.register(WorkerMetrics(settings))
    return service
