"""What `orderflow top` shows: one look at everything that tells how the stack is. What cannot be read is named."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import msgspec

from orderflow.alerts.shown import AlertShown, shown
from orderflow.client import Client
from orderflow.errors import OrderflowError
from orderflow.process import CONSUMER, RELAY, Beat, read_heartbeat
from orderflow.status import Row  # noqa: TC001 (msgspec reads the annotations)
from orderflow.store.alerts import Alerts
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orderflow.stack import Stack

CART = "cart-service"

#: How long a service may take to answer.
TIMEOUT_S = 2.0

#: What rates are an average of, at least; with a longer interval they are one of that.
WINDOW_S = 5.0

ALERTS_MAX = 100

T = TypeVar("T")


class Lag(msgspec.Struct, frozen=True):
    """How far one partition is behind; ``seconds`` is None where nothing waits."""

    partition: int
    records: int
    seconds: float | None


class Waiting(msgspec.Struct, frozen=True, rename="camel"):
    """What is in the outbox undelivered; ``oldest_seconds`` is None where nothing is."""

    waiting: int
    held: int
    bytes: int
    oldest_seconds: float | None


class Figures(msgspec.Struct, frozen=True):
    """One look, at ``at`` seconds since 1970. None is what could not be read; ``problems`` says why, by what it is of.

    ``rates`` are events a second, by what came of them: published, spooled, refused, unknown (cart-service), applied,
    duplicates, skipped (order-consumer), delivered (outbox-relay). One that is missing is not known, or not yet.
    """

    at: float
    programs: list[Row] | None
    rates: dict[str, float]
    breaker: str | None
    lag: list[Lag] | None
    outbox: Waiting | None
    alerts: list[AlertShown] | None
    problems: dict[str, str]


class Unreadable(OrderflowError):
    """Something of a look could not be read; the message says why."""


class Rates:
    """Counts per second, from the differences between looks. A program that began again begins again here."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, Mapping[str, float]]]] = {}

    def note(self, source: str, at: float, counts: Mapping[str, float]) -> dict[str, float]:
        """Take note of a source's counts at a time; give the rates since the window began, none at the first look."""
        seen = self._seen.setdefault(source, deque())
        if seen and any(counts.get(name, 0.0) < count for name, count in seen[-1][1].items()):
            seen.clear()
        if not seen or at > seen[-1][0]:
            seen.append((at, counts))
        while len(seen) > 2 and seen[-1][0] - seen[1][0] >= WINDOW_S:  # noqa: PLR2004 (two make a difference)
            seen.popleft()
        (begin, first), (end, last) = seen[0], seen[-1]
        return (
            {name: (count - first.get(name, 0.0)) / (end - begin) for name, count in last.items()}
            if end > begin
            else {}
        )

    def forget(self, source: str) -> None:
        """Drop what is known of a source that does not tell any more."""
        self._seen.pop(source, None)


class Watch:
    """Looks again and again."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._settings = stack.settings
        self._rates = Rates()
        self._client = Client.from_settings(stack.settings, timeout_s=TIMEOUT_S, retries=0)
        self._outbox = Outbox(stack.settings)
        self._desk = OutboxDesk(stack.settings)
        self._alerts = Alerts(stack.settings)
        self._pool = ThreadPoolExecutor()

    def close(self) -> None:
        """Close connections and files. What is read just now is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def look(self) -> Figures:
        """Take a look, at all parts at once: one that is slow to answer does not delay the others."""
        problems: dict[str, str] = {}

        def tried(what: str, read: Callable[[], T]) -> T | None:
            try:
                return read()
            except (OrderflowError, OSError) as error:
                problems[what] = str(error)
                self._rates.forget(what)
                return None

        programs = self._pool.submit(tried, "programs", self._stack.status)
        cart = self._pool.submit(tried, CART, self._look_at_cart)
        consumer = self._pool.submit(tried, CONSUMER, self._look_at_consumer)
        relay = self._pool.submit(tried, RELAY, lambda: self._look_at_worker(RELAY, {"delivered": "delivered"})[0])
        outbox = self._pool.submit(tried, "outbox", self._look_at_outbox)
        alerts = self._pool.submit(tried, "alerts", self._look_at_alerts)
        published, breaker = cart.result() or ({}, None)
        applied, lag = consumer.result() or ({}, None)
        return Figures(
            at=time.time(),
            programs=programs.result(),
            rates={**published, **applied, **(relay.result() or {})},
            breaker=breaker,
            lag=lag,
            outbox=outbox.result(),
            alerts=alerts.result(),
            problems=dict(sorted(problems.items())),
        )

    def _look_at_cart(self) -> tuple[dict[str, float], str | None]:
        samples, at = self._client.metrics("cart"), time.time()
        counts = dict.fromkeys(("published", "spooled", "refused", "unknown"), 0.0)
        breaker = None
        for sample in samples:
            if sample.name == "orderflow_events_published_total":
                outcome = sample.labels["outcome"]
                counts[outcome] = counts.get(outcome, 0.0) + sample.value
            elif sample.name == "orderflow_breaker_state" and sample.value:
                breaker = sample.labels["state"]
        return self._rates.note(CART, at, counts), breaker

    def _look_at_consumer(self) -> tuple[dict[str, float], list[Lag]]:
        rates, beat = self._look_at_worker(
            CONSUMER, {"applied": "applied", "duplicate": "duplicates", "skipped.": "skipped"}
        )
        now = time.time()
        return rates, [Lag(partition, lag.records, lag.seconds(now)) for partition, lag in sorted(beat.lags.items())]

    def _look_at_worker(self, program: str, names: Mapping[str, str]) -> tuple[dict[str, float], Beat]:
        """Read a worker's heartbeat. ``names`` says which rate a counter is of; one with a dot, all that begin so."""
        beat = read_heartbeat(self._settings, program)
        if beat is None:
            raise Unreadable(f"{program} has no heartbeat")
        if beat.age_s() > self._settings.heartbeat_stale_s:
            raise Unreadable(f"{program} does not beat since {beat.age_s():.0f} s")
        counts = {
            rate: float(sum(count for name, count in beat.counters.items() if _is(name, key)))
            for key, rate in names.items()
        }
        return self._rates.note(program, beat.at, counts), beat

    def _look_at_outbox(self) -> Waiting:
        self._refuse_missing()
        totals, oldest_at = self._outbox.totals(), self._desk.oldest_waiting_at()
        oldest_seconds = None if oldest_at is None else max(0.0, time.time() - oldest_at / 1000)
        return Waiting(totals.waiting, totals.held, totals.bytes_undelivered, oldest_seconds)

    def _look_at_alerts(self) -> list[AlertShown]:
        self._refuse_missing()
        return [shown(row) for row in self._alerts.rows(limit=ALERTS_MAX)]

    def _refuse_missing(self) -> None:
        """Opening the file would make one, in whichever folder this is."""
        if not self._settings.outbox_db.exists():
            raise Unreadable(f"there is no {self._settings.outbox_db}; the services make it when they start")


def _is(name: str, key: str) -> bool:
    return name.startswith(key) if key.endswith(".") else name == key
