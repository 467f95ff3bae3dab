"""The workers' metrics: what a heartbeat file says comes out as it is, and nothing is made up where it says nothing."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from order_consumer.lag import LagWatch
from order_service.app import make_app
from orderflow.events import SkipReason
from orderflow.measures import APPLY_SECONDS, Distribution, Lag
from orderflow.process import Heartbeat, read_heartbeat
from orderflow.settings import Settings
from orderflow.store.skips import COUNT_MAX
from orderflow.store.writer import Writer
from orderflow.worker_metrics import CONSUMER, RELAY, WorkerMetrics
from tests.support.metrics import Scrape
from tests.support.skips import put, skip

if TYPE_CHECKING:
    from pathlib import Path


class Watched:
    """The metrics of the workers, ``later`` seconds from now."""

    def __init__(self, settings: Settings) -> None:
        self.later = 0.0
        self.heartbeat = Heartbeat(settings, CONSUMER)
        self._registry = CollectorRegistry()
        self._registry.register(WorkerMetrics(settings, lambda: time.time() + self.later))

    def scrape(self) -> Scrape:
        return Scrape.of(generate_latest(self._registry).decode())


@pytest.fixture
def watched(settings: Settings) -> Watched:
    return Watched(settings)


def test_what_a_worker_counts_is_told(watched: Watched) -> None:
    """Each reason and verdict is there from the first heartbeat on: a rule must see the step from 0 to 1."""
    watched.heartbeat.counters = {"applied": 3, "skipped.unknown_order": 2, "skipped.invalid_control": 1}
    watched.heartbeat.beat("running")

    found = watched.scrape()

    assert found.value("orderflow_events_applied_total") == 3
    assert found.value("orderflow_events_duplicate_total") == 0
    skipped = found.all("orderflow_records_skipped_total")
    assert skipped.keys() == {(reason.value,) for reason in SkipReason}
    assert (skipped["unknown_order",], skipped["malformed_json",]) == (2, 0)
    assert found.all("orderflow_controls_total") == {
        ("accepted",): 0, ("superseded",): 0, ("stale",): 0, ("invalid_control",): 1, ("duplicate",): 0,
    }  # fmt: skip


def test_a_label_has_no_value_that_is_not_known_before(watched: Watched) -> None:
    """Whatever a heartbeat counts: no text of a caller becomes a series."""
    watched.heartbeat.counters = {"skipped.ord-4711": 1, "control.ord-4711": 1, "ord-4711": 1}
    watched.heartbeat.beat("running")

    assert "4711" not in str(watched.scrape())


def test_the_times_of_batches_are_a_histogram(watched: Watched) -> None:
    distribution = Distribution.over(0.5, 1.0)
    for seconds in (0.1, 0.5, 0.7, 9.0):
        distribution.observe(seconds)
    watched.heartbeat.distributions = {APPLY_SECONDS: distribution}
    watched.heartbeat.beat("running")

    found = watched.scrape()

    name = "orderflow_apply_duration_seconds"
    assert found.all(f"{name}_bucket") == {("0.5",): 2, ("1.0",): 3, ("+Inf",): 4}
    assert (found.value(f"{name}_count"), found.value(f"{name}_sum")) == (4, pytest.approx(10.3))


def test_how_a_worker_is_and_since_when(watched: Watched) -> None:
    watched.heartbeat.beat("waiting", "Kafka")
    watched.later = 2

    found = watched.scrape()

    states = found.all("orderflow_worker_state")
    assert [labels for labels, figure in states.items() if figure] == [(CONSUMER, "waiting")]
    assert {labels[0] for labels in states} == {CONSUMER}, "the relay has not beaten: nobody knows how it is"
    assert found.value("orderflow_worker_start_time_seconds", program=CONSUMER) == pytest.approx(time.time(), abs=5)
    assert found.value("orderflow_heartbeat_age_seconds", program=CONSUMER) == pytest.approx(2, abs=1)


def test_of_a_silent_worker_ages_grow_and_how_it_is_nobody_knows(watched: Watched) -> None:
    """What it has counted, it has counted. What waited when it fell silent waits on; of the rest nothing is known."""
    watched.heartbeat.counters = {"applied": 3}
    watched.heartbeat.lags = {0: Lag(7, time.time() - 5), 1: Lag(0, None)}
    watched.heartbeat.beat("running")
    fresh = watched.scrape()
    watched.later = 60
    stale = watched.scrape()

    assert fresh.all("orderflow_lag_records") == {("0",): 7, ("1",): 0}
    assert fresh.all("orderflow_lag_seconds") == {("0",): pytest.approx(5, abs=1), ("1",): 0}
    assert stale.all("orderflow_lag_seconds") == {("0",): pytest.approx(65, abs=1)}
    assert stale.value("orderflow_events_applied_total") == 3
    assert stale.value("orderflow_heartbeat_age_seconds", program=CONSUMER) == pytest.approx(60, abs=1)
    for gauge in ("orderflow_lag_records", "orderflow_worker_state", "orderflow_worker_start_time_seconds"):
        assert fresh.all(gauge)
        assert stale.all(gauge) == {}


#: Of two bounds, and counts for one.
MISSHAPEN = (
    '{"program":"x","pid":1,"at":1.0,"state":"running","waits_for":null,"counters":{},'
    '"distributions":{"apply_seconds":{"bounds":[1.0,2.0],"counts":[0,0],"sum":0.0}}}'
)


@pytest.mark.parametrize("text", [None, "", "{", '{"counters": 1}', MISSHAPEN])
def test_without_a_heartbeat_that_can_be_read_there_is_its_age(watched: Watched, text: str | None) -> None:
    """Since the last one; where there never was any, since it is looked for."""
    path = watched.heartbeat.path
    watched.later = 5
    never = watched.scrape()
    watched.heartbeat.beat("running")
    watched.later = 8
    watched.scrape()
    path.unlink() if text is None else path.write_text(text)
    watched.later = 20
    gone = watched.scrape()

    ages = "orderflow_heartbeat_age_seconds"
    assert never.all(ages) == {(CONSUMER,): pytest.approx(5, abs=1), (RELAY,): pytest.approx(5, abs=1)}
    assert gone.all(ages) == {(CONSUMER,): pytest.approx(20, abs=1), (RELAY,): pytest.approx(20, abs=1)}
    assert {name for name, _ in gone} == {ages}


def test_a_heartbeat_of_an_earlier_version_is_read(watched: Watched, settings: Settings) -> None:
    """It has no times and no lags."""
    beat = '{"program":"x","pid":1,"at":%f,"state":"running","waits_for":null,"counters":{"applied":1}}'
    watched.heartbeat.path.write_text(beat % time.time())

    assert read_heartbeat(settings, CONSUMER) is not None
    assert watched.scrape().value("orderflow_events_applied_total") == 1
    assert watched.scrape().all("orderflow_lag_seconds") == {}


# Since when something waits.


def test_what_is_left_behind_a_batch_waits_since_its_last_record() -> None:
    """The record behind it is younger, and nobody has seen it yet."""
    watch = LagWatch(lambda: 100.0)

    assert watch.note({0: 5, 1: 0}, {0: 90_000, 1: 95_000}) == 5
    assert watch.lags == {0: Lag(5, 90.0), 1: Lag(0, None)}


def test_what_waits_with_nothing_applied_waits_since_it_was_seen() -> None:
    now = [100.0]
    watch = LagWatch(lambda: now[0])
    watch.note({0: 5}, {})
    now[0] = 130.0
    watch.note({0: 9}, {})
    assert watch.lags == {0: Lag(9, 100.0)}
    watch.note({}, {})
    assert watch.lags == {0: Lag(9, 100.0)}, "of a partition that is not known now, what was known stays"
    watch.note({0: 4}, {0: 120_000})
    assert watch.lags == {0: Lag(4, 120.0)}
    watch.note({0: 0}, {})
    watch.note({0: 1}, {})

    assert watch.lags == {0: Lag(1, 130.0)}


def test_amid_a_batch_its_first_record_has_waited_longest() -> None:
    """It may be older than anything that was seen before: after a stop, say."""
    watch = LagWatch(lambda: 100.0)

    assert watch.note_within({0: 5, 1: 2, 2: 0}, {0: 40_000}) == 7
    first = watch.lags
    watch.note_within({0: 4}, {0: 60_000})
    longer = watch.lags
    watch.note({0: 3}, {0: 70_000})

    assert first == {0: Lag(5, 40.0), 1: Lag(2, 100.0), 2: Lag(0, None)}
    assert longer[0] == Lag(4, 40.0)
    assert watch.lags[0] == Lag(3, 70.0)


# The scrape as a whole.


def test_a_scrape_is_quick_however_much_there_is(settings: Settings) -> None:
    """More skips than are counted of one reason, too."""
    writer = Writer(settings)
    writer.close()
    many = COUNT_MAX + 10
    put(settings, [skip(offset, reason="unknown_order") for offset in range(many)])
    put(settings, [skip(offset) for offset in range(many, many + 10_000)])
    service = make_app(settings)
    service.metrics.render()
    took = []
    for _ in range(5):
        started = time.perf_counter()
        text = service.metrics.render().decode()
        took.append(time.perf_counter() - started)

    counts = Scrape.of(text).all("orderflow_skips_open")
    assert (counts["unknown_order",], counts["malformed_json",], counts["missing_key",]) == (COUNT_MAX, 10_000, 0)
    assert min(took) < 0.05


def test_a_locked_outbox_does_not_hold_up_a_scrape(settings: Settings) -> None:
    """Callers wait for it longer. What it would tell is left out."""
    service = make_app(settings)
    service.metrics.render()
    with closing(sqlite3.connect(settings.outbox_db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        found = Scrape.of(service.metrics.render().decode())
        took_s = time.monotonic() - started

    assert found.all("orderflow_alerts_open") == {}
    assert found.value("orderflow_heartbeat_age_seconds", program=CONSUMER) is not None
    assert took_s < settings.outbox_busy_timeout_s / 2


def test_a_scrape_does_not_fail_where_nothing_can_be_read(tmp_path: Path) -> None:
    """Nothing is there, or something else is in its place: what it says is left out, and the rest is told."""
    settings = Settings(var_dir=str(tmp_path / "var"))
    service = make_app(settings)
    nothing = Scrape.of(service.metrics.render().decode())
    for path in (settings.orders_db, settings.outbox_db, settings.run_dir / f"{CONSUMER}.json"):
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
    other = Scrape.of(service.metrics.render().decode())

    for found in (nothing, other):
        assert found.value("orderflow_heartbeat_age_seconds", program=CONSUMER) is not None
        assert found.all("orderflow_skips_open") == {}
    assert other.all("orderflow_alerts_open") == {}
