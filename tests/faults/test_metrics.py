"""Every documented metric moves when it should: on a working day, beside a locked database, in an outage."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.calls import Answer, Caller
from tests.support.documents import DOCS, read, table
from tests.support.messages import produce
from tests.support.metrics import Scrape, scrape
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.stack import Stack
    from tests.conftest import MakeStack

pytestmark = pytest.mark.faults

CONSUMER = "order-consumer"
STALE_S = 2.0

#: Waits are short, and so is the time after which something is seen to be wrong.
SETTINGS: dict[str, Any] = {
    "publish_attempt_timeout_s": 0.3,
    "publish_retry_first_delay_s": 0.05,
    "store_busy_timeout_s": 0.2,
    "heartbeat_interval_s": 0.2,
    "heartbeat_stale_s": STALE_S,
    "outbox_keep_delivered_s": 1.0,
}

#: What says of which version it is moves with nothing that is done here.
STAYS = {"orderflow_build_info"}


class Watched:
    """A stack, what is measured of it, and the names of the metrics that were seen to move."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.last = scrape(stack.settings)
        self.moved: set[str] = set()

    def write(self, path: str, **body: object) -> Answer:
        """Write under a key that follows from the body, so that the same again is the same event."""
        key = {"Idempotency-Key": "-".join(map(str, body.values()))}
        with closing(Caller(self.stack.settings.cart_port)) as cart:
            return cart.call("POST" if path == "/create-order" else "PUT", path, body, key)

    def discard(self, skip: str) -> None:
        with closing(Caller(self.stack.settings.order_port)) as order:
            said = {"author": "kim", "reason": "a test"}
            assert order.call("POST", f"/skipped-messages/{skip}/discard", said).status == 202

    def read_after(self, order_id: str, event_id: str) -> None:
        """Read an order when an event is applied."""
        with closing(Caller(self.stack.settings.order_port)) as order:
            order.call("GET", f"/order-details?orderId={order_id}&after={event_id}&wait=20")

    def scrape(self) -> Scrape:
        before, self.last = self.last, scrape(self.stack.settings)
        self.moved |= self.last.moved(before)
        return self.last

    def until(self, what: str, condition: Callable[[Scrape], object], within_s: float = 15) -> Scrape:
        """Scrape until what is measured is so."""

        def found() -> Scrape | None:
            now = self.scrape()
            return now if condition(now) else None

        return until(found, what, within_s, every_s=0.1)


@pytest.fixture
def watched(make_stack: MakeStack) -> Watched:
    stack = make_stack(**SETTINGS)
    stack.up()
    return Watched(stack)


def test_each_documented_metric_moves_when_it_should(watched: Watched) -> None:
    """By the right amount, where there is one; and none is documented that nothing here moves."""
    a_working_day(watched)
    a_second_consumer(watched)
    a_locked_database_and_a_frozen_worker(watched)
    an_outage(watched)
    a_restart(watched)

    documented = table(read(DOCS / "metrics.md"), "orderflow_[a-z_]+").keys()
    assert documented - watched.moved == STAYS


# A working day.

SKIPPED = "orderflow_records_skipped_total"


def a_working_day(watched: Watched) -> None:
    """What is skipped is counted by its reason and copied; a discard closes it, and its count stays."""
    assert watched.write("/create-order", orderId="m-1", itemsNum=1).status == 201
    assert watched.write("/create-order", orderId="m-1", itemsNum=1).status == 201
    assert watched.write("/update-order", orderId="m-none", status="shipped").status == 200
    ((partition, offset),) = produce(watched.stack.settings, [{"key": b"m-1", "value": b"{"}], acks="all")

    done = watched.until(
        "two are skipped, and copied",
        lambda now: now.value("orderflow_dead_letters_total") == 2 and len(some(now.all(SKIPPED))) == 2,
    )
    two_skips = {("malformed_json",): 1, ("unknown_order",): 1}
    assert some(done.all(SKIPPED)) == some(done.all("orderflow_skips_open")) == two_skips
    assert done.value("orderflow_events_applied_total") == 1
    assert done.value("orderflow_events_duplicate_total") == 1
    assert done.value("orderflow_apply_batch_records_sum") == 4
    batches = done.value("orderflow_apply_batch_records_count")
    assert done.value("orderflow_apply_duration_seconds_count") == batches

    watched.discard(f"1-{partition}-{offset}")
    closed = watched.until("it is discarded", lambda now: some(now.all("orderflow_controls_total")))
    assert some(closed.all("orderflow_controls_total")) == {("accepted",): 1}
    assert some(closed.all("orderflow_skips_open")) == {("unknown_order",): 1}
    assert some(closed.all(SKIPPED)) == two_skips
    watched.until("the relay tells of it", lambda now: now.value("orderflow_outbox_delivered_total") == 1)


def a_second_consumer(watched: Watched) -> None:
    """Started by hand, it waits for its lock, and says nothing while the first one beats: no counter falls."""
    settings, before = watched.stack.settings, watched.scrape()
    lock = settings.run_dir / f"{CONSUMER}.lock"
    command = [sys.executable, "-m", "order_consumer"]
    looks = []
    second = subprocess.Popen(command, env=watched.stack.env, stdout=subprocess.DEVNULL)
    try:
        until(lambda: str(lock) in open_files(second.pid), "it waits for the lock", within_s=10)
        for _ in range(20):
            looks.append(watched.scrape())
            time.sleep(0.1)
    finally:
        second.terminate()
        second.wait(timeout=10)

    assert {found.value("orderflow_events_applied_total") for found in looks} == {1}
    for gauge in ("orderflow_worker_state", "orderflow_worker_start_time_seconds"):
        assert all(found.all(gauge) == before.all(gauge) for found in looks)


def open_files(pid: int) -> set[str]:
    return {file.path for file in psutil.Process(pid).open_files()}


def some(figures: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {labels: figure for labels, figure in figures.items() if figure}


# A worker that stands still.


def a_locked_database_and_a_frozen_worker(watched: Watched) -> None:
    """What waits is known from before the worker stood still, and grows older all the time."""
    pid = watched.stack.pid(CONSUMER)
    assert pid is not None
    with closing(sqlite3.connect(watched.stack.settings.orders_db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        written = watched.write("/update-order", orderId="m-1", status="shipped")
        waits = watched.until(
            "the consumer waits for the store",
            lambda now: now.value("orderflow_worker_state", program=CONSUMER, state="waiting") == 1,
        )
        reading = Thread(target=watched.read_after, args=("m-1", written.body["eventId"]))
        reading.start()
        watched.until("a read waits for it", lambda now: now.value("orderflow_reads_waiting") == 1)
        with frozen(pid):
            first = watched.scrape()
            stale = watched.until("it is seen to be silent", lambda now: silent_s(now) > STALE_S + 1)
    after = watched.until("all is applied", lambda now: set(now.all("orderflow_lag_records").values()) == {0})
    reading.join()
    watched.until("the read was told", lambda now: now.value("orderflow_reads_waited_total", outcome="applied") == 1)

    assert list(some(waits.all("orderflow_lag_records")).values()) == [1]
    assert stale.all("orderflow_lag_records") == {}
    assert {program for program, _ in stale.all("orderflow_worker_state")} == {"outbox-relay"}
    assert lag_s(first) + 1 < lag_s(stale)
    assert silent_s(first) + 1 < silent_s(stale)
    assert (lag_s(after), silent_s(after) < STALE_S) == (0, True)


def silent_s(found: Scrape) -> float:
    return found.value("orderflow_heartbeat_age_seconds", program=CONSUMER) or 0


def lag_s(found: Scrape) -> float:
    return max(found.all("orderflow_lag_seconds").values())


# An outage.


def an_outage(watched: Watched) -> None:
    """A write is tried again, and spooled; the breaker opens, the outbox fills and grows old, an alert opens."""
    before = watched.scrape()
    watched.stack.stop("kafka")
    assert watched.write("/update-order", orderId="m-1", status="delivered").status == 202
    assert watched.write("/create-order", orderId="m-2", itemsNum=1).status == 202
    away = watched.until(
        "the outage is told",
        lambda now: (
            now.value("orderflow_alerts_open", cause="kafka_unreachable", severity="critical") == 1
            and now.value("orderflow_outbox_events", state="waiting") == 2
        ),
    )
    later = watched.until("what waits grows older", lambda now: oldest_s(now) > oldest_s(away) + 0.5)
    watched.stack.start("kafka")
    over = watched.until(
        "it is over, and what was delivered is removed",
        lambda now: (
            now.value("orderflow_outbox_delivered_total") == 3
            and now.value("orderflow_outbox_pruned_total")
            and not some(now.all("orderflow_alerts_open"))
        ),
        within_s=40,
    )

    retries = "orderflow_publish_retries_total"
    assert (away.value(retries) or 0) - (before.value(retries) or 0) == 3
    assert some(before.all("orderflow_breaker_state")) == some(over.all("orderflow_breaker_state")) == {("closed",): 1}
    assert ("closed",) not in some(away.all("orderflow_breaker_state"))
    assert (away.value("orderflow_outbox_bytes") or 0) > 0 == over.value("orderflow_outbox_bytes")
    assert oldest_s(later) > 0.5 > oldest_s(over) == 0
    published = away.grown(before)
    for kind in ("order.created", "order.status_changed"):
        labels = (("outcome", "spooled"), ("type", kind))
        assert published["orderflow_events_published_total", labels] == 1


def oldest_s(found: Scrape) -> float:
    return found.value("orderflow_outbox_oldest_age_seconds", state="waiting") or 0


def a_restart(watched: Watched) -> None:
    """Another process counts from 0 on, and says since when."""
    applied = "orderflow_events_applied_total"
    before = watched.until("all is applied, and told", lambda now: now.value(applied) == 4)
    watched.stack.stop(CONSUMER)
    watched.stack.start(CONSUMER)

    def started(found: Scrape) -> float:
        return found.value("orderflow_worker_start_time_seconds", program=CONSUMER) or 0

    after = watched.until("another process beats", lambda now: started(now) > started(before))
    assert after.value(applied) == 0
