"""Prometheus metrics, read with the library that Prometheus's authors made for Python."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.support.calls import Caller

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: What the samples of a histogram have behind its name.
PARTS = ("_bucket", "_count", "_sum")

#: The name of a sample, and its labels as pairs in the sequence of names.
Series = tuple[str, tuple[tuple[str, str], ...]]


class Scrape(dict[Series, float]):
    """The samples of one or several scrapes."""

    @classmethod
    def of(cls, *texts: str) -> Scrape:
        """Read the texts of several services; of a series that two of them have the last counts."""
        return cls(
            ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
            for text in texts
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def value(self, name: str, **labels: str) -> float | None:
        """One sample; None where there is none."""
        return self.get((name, tuple(sorted(labels.items()))))

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a name, by the values of their labels in the sequence of the labels' names."""
        return {tuple(v for _, v in labels): figure for (found, labels), figure in self.items() if found == name}

    def grown(self, before: Scrape) -> dict[Series, float]:
        """By how much samples grew that did, or appeared with more than 0."""
        grown = {series: figure - before.get(series, 0.0) for series, figure in self.items()}
        return {series: by for series, by in grown.items() if by > 0}

    def moved(self, before: Scrape) -> set[str]:
        """The names of the metrics of which some sample is another."""
        return {
            metric_of(name)
            for name, labels in self.keys() | before.keys()
            if self.get((name, labels)) != before.get((name, labels))
        }


def metric_of(sample: str) -> str:
    """The name of the metric that a sample belongs to."""
    return next((sample.removesuffix(part) for part in PARTS if sample.endswith(part)), sample)


def metrics_text(port: int) -> str:
    """What a service gives to Prometheus."""
    with closing(Caller(port)) as caller:
        answer = caller.call("GET", "/metrics")
    assert answer.status == 200, answer
    return str(answer.body)


def scrape(settings: Settings) -> Scrape:
    """Both services of a stack."""
    return Scrape.of(metrics_text(settings.cart_port), metrics_text(settings.order_port))
