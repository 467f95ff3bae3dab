"""Prometheus metrics of one service: requests, their time, and what the service adds. docs/metrics.md lists them."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orderflow.errors import OrderflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Read = Callable[[], Mapping[tuple[str, ...], float]]

#: Seconds. A create is a few milliseconds, an outage the publisher's deadline.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

M = TypeVar("M", Counter, Histogram)

# A gauge beside each counter and histogram that says since when it counts: as many series again, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here


class Children(dict[tuple[object, ...], M]):
    """The children of one metric, by the values of its labels: looked up once, since that costs more than counting."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: tuple[object, ...]) -> M:
        child: M = self._metric.labels(*labels)
        self[labels] = child
        return child

    def begin(self, known: Iterable[tuple[object, ...]]) -> None:
        """Have these there, as 0, before they are first counted: else nobody sees the step from 0 to 1."""
        for labels in known:
            _ = self[labels]


class Reading(Collector):
    """What is read when it is scraped; without figures where it cannot be read: then nobody knows, which is not 0."""

    def __init__(
        self,
        kind: Callable[..., GaugeMetricFamily | CounterMetricFamily],
        name: str,
        description: str,
        labels: Sequence[str],
        read: Read,
    ) -> None:
        self._new_family = partial(kind, name, description, labels=labels)
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Give the metric as it is now."""
        family = self._new_family()
        with suppress(OrderflowError, OSError):
            for labels, figure in self._read().items():
                family.add_metric(labels, figure)
        yield family


class Metrics:
    """A registry of its own, so that two services in one test do not share figures."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        seconds = Histogram(
            "orderflow_http_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._seconds = Children(seconds)
        self._answers = self.counter(
            "orderflow_http_requests_total", "Answered requests.", ("method", "route", "status")
        )
        versions = {"version": version("orderflow"), "python": platform.python_version()}
        Info("orderflow_build", "The version of orderflow, and of Python.", registry=self.registry).info(versions)
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, description: str, labels: tuple[str, ...]) -> Children[Counter]:
        """Add a counter of the service's own; its children are items, by the values of the labels."""
        return Children(Counter(name, description, labels, registry=self.registry))

    def gauge(self, name: str, description: str, labels: Sequence[str], read: Read) -> None:
        """Add a gauge of the service's own: ``read`` gives its figures, by the values of the labels."""
        self.registry.register(Reading(GaugeMetricFamily, name, description, labels, read))

    def counted(self, name: str, description: str, labels: Sequence[str], read: Read) -> None:
        """Add a counter that is kept elsewhere: ``read`` gives its figures, as above."""
        self.registry.register(Reading(CounterMetricFamily, name, description, labels, read))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._seconds[method, route].observe(seconds)
        self._answers[method, route, status].inc()

    def render(self) -> bytes:
        """Give the text that Prometheus scrapes."""
        return generate_latest(self.registry)
