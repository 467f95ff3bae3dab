"""The workers' metrics: what their heartbeat files say, as order_service tells it to Prometheus.

Workers have no port. What a key of the heartbeat's counters is called as a metric stands here, and nowhere else.
docs/metrics.md lists the names.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from orderflow.controls import Verdict
from orderflow.events import SkipReason
from orderflow.measures import APPLY_SECONDS, BATCH_RECORDS
from orderflow.process import CONSUMER, RELAY, Beat, State, read_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from orderflow.settings import Settings


class Counted(NamedTuple):
    """A counter of a worker: the metric, and under which key the heartbeat has the figure for each value of its label.

    The values are a closed set, so that each is there, as 0, before it is first counted.
    """

    program: str
    metric: str
    help: str
    keys: Mapping[str, str]
    label: str | None = None


def _plain(program: str, key: str, metric: str, text: str) -> Counted:
    return Counted(program, metric, text, {"": key})


COUNTERS = (
    _plain(CONSUMER, "applied", "orderflow_events_applied_total", "Events that took effect."),
    _plain(CONSUMER, "duplicate", "orderflow_events_duplicate_total", "Further copies of events, dropped."),
    Counted(
        CONSUMER,
        "orderflow_records_skipped_total",
        "Records that were not applied, by the reason.",
        {reason.value: f"skipped.{reason}" for reason in SkipReason},
        "reason",
    ),
    Counted(
        CONSUMER,
        "orderflow_controls_total",
        "Repairs and discards that were read, by what came of them.",
        # A control that is none is a skipped record, and counted as such.
        {v.value: f"skipped.{v}" if v is Verdict.INVALID_CONTROL else f"control.{v}" for v in Verdict},
        "verdict",
    ),
    _plain(RELAY, "delivered", "orderflow_outbox_delivered_total", "Events and controls that the relay delivered."),
    _plain(RELAY, "pruned", "orderflow_outbox_pruned_total", "Delivered rows that were removed from the outbox."),
    _plain(RELAY, "dead_letters", "orderflow_dead_letters_total", "Copies of skipped messages that were made."),
)

DISTRIBUTIONS = (
    (
        APPLY_SECONDS,
        "orderflow_apply_duration_seconds",
        "Time to apply what one poll gave, with the waits for the store.",
    ),
    (BATCH_RECORDS, "orderflow_apply_batch_records", "Records that one poll gave."),
)


class WorkerMetrics(Collector):
    """Reads the heartbeats at each scrape.

    Of a worker that does not beat any more the counters stay and the ages grow; how it is nobody knows, which is not 0.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        #: When each was last seen to beat; before it was, since when it is looked for.
        self._last_at = dict.fromkeys((CONSUMER, RELAY), clock())

    def collect(self) -> Iterator[Metric]:
        """Give all of them."""
        now = self._clock()
        beats = {program: beat for program in self._last_at if (beat := read_heartbeat(self._settings, program))}
        self._last_at |= {program: beat.at for program, beat in beats.items()}
        yield _ages(now, self._last_at)
        fresh = {p: beat for p, beat in beats.items() if now - beat.at <= self._settings.heartbeat_stale_s}
        yield _states(fresh)
        yield _starts(fresh)
        for counter in COUNTERS:
            yield _counted(counter, beats.get(counter.program))
        for key, metric, text in DISTRIBUTIONS:
            yield _distributed(key, metric, text, beats.get(CONSUMER))
        yield _lag_records(fresh.get(CONSUMER))
        yield _lag_seconds(now, beats.get(CONSUMER), known=CONSUMER in fresh)


def _ages(now: float, last_at: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(
        "orderflow_heartbeat_age_seconds", "Time since a worker's last heartbeat.", labels=("program",)
    )
    for program, at in last_at.items():
        family.add_metric((program,), max(0.0, now - at))
    return family


def _states(fresh: Mapping[str, Beat]) -> Metric:
    family = GaugeMetricFamily("orderflow_worker_state", "1 for a worker's state.", labels=("program", "state"))
    for program, beat in fresh.items():
        for state in get_args(State):
            family.add_metric((program, state), float(state == beat.state))
    return family


def _starts(fresh: Mapping[str, Beat]) -> Metric:
    family = GaugeMetricFamily(
        "orderflow_worker_start_time_seconds", "When a worker was started, since 1970.", labels=("program",)
    )
    for program, beat in fresh.items():
        family.add_metric((program,), beat.started_at)
    return family


def _counted(counter: Counted, beat: Beat | None) -> Metric:
    labels = () if counter.label is None else (counter.label,)
    family = CounterMetricFamily(counter.metric, counter.help, labels=labels)
    if beat is not None:
        for value, key in counter.keys.items():
            family.add_metric(labels and (value,), beat.counters.get(key, 0))
    return family


def _distributed(key: str, metric: str, text: str, beat: Beat | None) -> Metric:
    family = HistogramMetricFamily(metric, text)
    found = None if beat is None else beat.distributions.get(key)
    if found is not None:
        family.add_metric((), list(found.cumulative()), found.sum)
    return family


def _lag_records(beat: Beat | None) -> Metric:
    family = GaugeMetricFamily("orderflow_lag_records", "Records that are not applied yet.", labels=("partition",))
    if beat is not None:
        for partition, lag in beat.lags.items():
            family.add_metric((str(partition),), lag.records)
    return family


def _lag_seconds(now: float, beat: Beat | None, *, known: bool) -> Metric:
    """How long something waits. What was left when the worker fell silent still does; what came since nobody knows."""
    family = GaugeMetricFamily(
        "orderflow_lag_seconds", "How long records wait to be applied; 0 where none does.", labels=("partition",)
    )
    for partition, lag in {} if beat is None else beat.lags.items():
        seconds = lag.seconds(now)
        if seconds is not None or known:
            family.add_metric((str(partition),), seconds or 0.0)
    return family
