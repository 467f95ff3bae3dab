"""The worker's store in trouble, locked or without room: it waits and says so, skips nothing, and goes on by itself."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orderflow.alerts import Cause
from orderflow.process import Beat, read_heartbeat
from orderflow.store.alerts import Alerts
from tests.support import store
from tests.support.command import orderflow
from tests.support.fuzz.batches import send
from tests.support.fuzz.checks import check, read_all
from tests.support.fuzz.makers import MAKERS, begun
from tests.support.load import Load
from tests.support.outage import Rounds, ask, log_lines
from tests.support.raw_batches import Raw, RawSocket, batch
from tests.support.store_trouble import locked_by_another, no_room, small_disk
from tests.support.truth import check_truth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack
    from tests.support.broker import Broker
    from tests.support.truth import Verdict

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

WORKER = "order-consumer"

LOCKED_S, FULL_S = 30.0, 10.0

#: A worker notices trouble when its wait for a lock is over.
NOTICED_S = 8.0

#: From the end of the trouble to the next record that is applied: the longest pause between two tries, and some more.
BACK_S = 5.0


@dataclass
class Watch:
    """What a stack's worker says and does while its store is in trouble."""

    stack: Stack
    process: psutil.Process = field(init=False)

    def __post_init__(self) -> None:
        self.process = self.running()

    def running(self) -> psutil.Process:
        """The worker's process: two are equal when pid and start are."""
        return psutil.Process(until(lambda: self.stack.pid(WORKER), "the worker runs", 20))

    def beat(self) -> Beat:
        beat = read_heartbeat(self.stack.settings, WORKER)
        assert beat is not None
        return beat

    def applied(self) -> dict[int, int]:
        return store.positions(self.stack.settings)

    def retries(self) -> list[dict[str, object]]:
        return log_lines(self.stack, WORKER, "store.retry_scheduled")

    def stands_still(self, says: str, for_s: float) -> None:
        """Assert that from now on the worker says that it waits, often, and that nothing is applied."""
        until(lambda: self.beat().waits_for == says, f"the worker says that it waits for {says}", NOTICED_S)
        before, until_then = self.applied(), time.monotonic() + for_s
        while time.monotonic() < until_then:
            beat = self.beat()
            assert (beat.state, beat.waits_for, beat.pid) == ("waiting", says, self.process.pid)
            assert beat.age_s() < self.stack.settings.heartbeat_stale_s, "it waits, and does not say so"
            assert self.applied() == before
            time.sleep(0.1)


def check_all_applied(watch: Watch, load: Load) -> Verdict:
    """Assert that all answers were true, all was applied once, nothing was skipped, and nobody was restarted."""
    verdict = check_truth(load.ledger, watch.stack.settings)
    assert set(verdict.outcomes) == {"published"}
    assert store.query(watch.stack.settings, "SELECT * FROM skipped_messages") == []
    assert watch.beat().state == "running"
    delays = [line["delay_s"] for line in watch.retries()]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6], "it waits longer each time"
    assert {line["level"] for line in watch.retries()} == {"error"}
    assert watch.running() == watch.process, "the worker was restarted"
    orderflow(watch.stack, "audit")
    return verdict


def seconds_until_applied(watch: Watch, before: dict[int, int]) -> float:
    began = time.monotonic()
    until(lambda: watch.applied() != before, "records are applied again", BACK_S)
    return time.monotonic() - began


def test_the_database_is_locked_for_30_s_by_another(make_stack: MakeStack, figures: Figures) -> None:
    """Somebody has begun a transaction, and forgotten it; orders come in all the time."""
    stack = make_stack()
    stack.up()
    watch = Watch(stack)

    with Load(stack.settings, writers=2, work=Rounds(pause_s=0.05)) as load:
        until(lambda: sum(watch.applied().values()) > 50, "records are applied", 20)
        with locked_by_another(stack.settings.orders_db, LOCKED_S):
            watch.stands_still("the store: database is locked", LOCKED_S - NOTICED_S - 1)
            before = watch.applied()
        back_s = seconds_until_applied(watch, before)
    verdict = check_all_applied(watch, load)

    tries = len(watch.retries())
    figures(f"database locked for {LOCKED_S:g} s", **verdict.outcomes, tries=tries, back_s=back_s)


def test_the_disk_of_the_database_is_full(make_stack: MakeStack, figures: Figures, tmp_path: Path) -> None:
    """Somebody else has filled it, and makes room in the end; orders come in all the time, and can be read."""
    stack = make_stack()
    with small_disk(tmp_path / "disk", 16_384) as disk:
        stack.settings.var.mkdir(parents=True)
        stack.settings.orders_db.symlink_to(disk / "orders.db")
        stack.up()
        watch = Watch(stack)

        with Load(stack.settings, writers=2, work=Rounds(pause_s=0.05)) as load:
            until(lambda: sum(watch.applied().values()) > 50, "records are applied", 20)
            with no_room(disk):
                watch.stands_still("the store: database or disk is full", FULL_S)
                before, read = watch.applied(), ask(stack.settings.order_port, "/order-details?orderId=round-0-0")
            back_s = seconds_until_applied(watch, before)
        verdict = check_all_applied(watch, load)
        stack.down()

    figures(f"database on a full disk for {FULL_S:g} s", **verdict.outcomes, back_s=back_s)
    assert read["order"]["orderId"] == "round-0-0"


# The worker alone; Kafka is on another disk.


def make_worker(make_stack: MakeStack, broker: Broker, **settings: Any) -> Stack:
    own = broker.settings()
    return make_stack(
        [WORKER],
        kafka_bootstrap_servers=own.kafka_bootstrap_servers,
        topic=own.topic,
        consumer_group=own.consumer_group,
        **settings,
    )


def open_socket(stack: Stack) -> AbstractContextManager[RawSocket]:
    return RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic)


@contextmanager
def up(stack: Stack) -> Iterator[Watch]:
    """Run a stack until the end of the block, as long as the disk is there."""
    try:
        stack.up()
        yield Watch(stack)
    finally:
        stack.down()


def test_the_disk_of_all_data_is_full(make_stack: MakeStack, broker: Broker, figures: Figures) -> None:
    """Neither store, heartbeat nor log can be written; in the end all that is good is applied, and all else kept."""
    stack = make_worker(make_stack, broker, heartbeat_stale_s=3.0)
    with small_disk(stack.settings.var, 196_608) as disk, up(stack) as watch, open_socket(stack) as socket:
        fuzz = begun(stack, figures, "fuzz on a full disk")
        fuzz.fill(MAKERS, 3_000)
        with no_room(disk):
            send(fuzz, socket)
            until(lambda: not read_all(stack, fuzz) and says(stack).startswith("no heartbeat for"), "it is told", 20)
            before = watch.applied()
            time.sleep(FULL_S / 2)
            assert watch.applied() == before
            assert watch.running() == watch.process
        until(lambda: read_all(stack, fuzz), "all is read", 30)
        counts = check(stack, fuzz)
        until(lambda: says(stack) == "running", "the heartbeat is written again", 5)
        until(lambda: told_unreadable(stack) == counts["unreadable_record"], "the alert is written", 10)
        orderflow(stack, "audit")
        assert watch.running() == watch.process, "the worker was restarted"

    figures("fuzz on a full disk", **counts)


def says(stack: Stack) -> str:
    (row,) = [row for row in stack.status() if row.program == WORKER]
    return row.says


def told_unreadable(stack: Stack) -> int:
    """How many records the one alert counts that could not be read; 0 where there is none."""
    with closing(Alerts(stack.settings)) as alerts:
        return sum(row.affected for row in alerts.rows() if row.cause == Cause.UNREADABLE_RECORD)


def test_an_alert_that_a_full_disk_does_not_take(make_stack: MakeStack, broker: Broker, tmp_path: Path) -> None:
    """It is told at once, the worker goes on, and the row is written when there is room."""
    stack = make_worker(make_stack, broker)
    unreadable = Raw(b"key", b"{}", [(b"\xff", None)])
    with small_disk(tmp_path / "disk", 1_024) as disk:
        stack.settings.var.mkdir(parents=True)
        stack.settings.outbox_db.symlink_to(disk / "outbox.db")
        with up(stack) as watch, open_socket(stack) as socket:
            with no_room(disk):
                socket.produce({0: batch([unreadable])})
                (told,) = until(lambda: log_lines(stack, WORKER, "alert.opened"), "it is told", 5)
                socket.produce({0: batch([unreadable, unreadable])})
                until(lambda: watch.applied() == {0: 3}, "the worker goes on", 5)
            until(lambda: told_unreadable(stack) == 3, "the row is written", 10)
            assert watch.running() == watch.process, "the worker was restarted"
        lines = log_lines(stack, WORKER, "alert.opened")

    assert (told["cause"], told["alert_id"]) == (Cause.UNREADABLE_RECORD, None)
    assert len(lines) == 1, "it is told once"


def test_a_worker_that_starts_with_its_store_in_trouble_waits(
    make_stack: MakeStack, broker: Broker, tmp_path: Path
) -> None:
    """It is up and says what it waits for, where ending would use up Supervisor's tries; then it reads on."""
    stack = make_worker(make_stack, broker, store_busy_timeout_s=0.5)
    unreadable = batch([Raw(b"key", b"{}", [(b"\xff", None)])])
    with small_disk(tmp_path / "disk", 8_192) as disk:
        stack.settings.var.mkdir(parents=True)
        stack.settings.orders_db.symlink_to(disk / "orders.db")
        with up(stack) as watch, open_socket(stack) as socket:
            troubles = (locked_by_another(stack.settings.orders_db, 6.0), no_room(disk))
            for number, trouble in enumerate(troubles, start=1):
                stack.stop(WORKER)
                socket.produce({0: unreadable})
                with trouble:
                    stack.start(WORKER)
                    started = watch.running()
                    until(lambda: says(stack).startswith("waits for the store: "), "it waits", 5)
                until(lambda there=number: watch.applied() == {0: there}, "it reads on", 10)
                assert watch.running() == started, "the worker was restarted"
