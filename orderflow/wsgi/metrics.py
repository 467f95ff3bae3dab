"""Prometheus metrics of one service: requests, their time, and what the service adds. docs/http.md lists the names."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

#: Seconds. A create is a few milliseconds, an outage the publisher's deadline.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """A registry of its own, so that two services in one test do not share figures."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "orderflow_http_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._answers = Counter(
            "orderflow_http_requests_total",
            "Answered requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
        """Add a counter of the service's own."""
        return Counter(name, description, labels, registry=self.registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._seconds.labels(method, route).observe(seconds)
        self._answers.labels(method, route, str(status)).inc()

    def render(self) -> bytes:
        """Give the text that Prometheus scrapes."""
        return generate_latest(self.registry)
