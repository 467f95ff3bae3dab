"""Kafka's log cut, put back or exchanged while its broker is down, and the consumer runs on: noticed, replayed."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from orderflow.broker import ensure_topic, partition_of
from tests.support.lost_log import Life, Node, beside
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Figures

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]

#: Orders of the first life: two on one partition, one elsewhere, which is never touched.
A, (B, *OTHERS) = "a", beside("a", 9)
C = next(name for name in ("c", "d", "e", "f") if partition_of(name.encode()) != partition_of(b"a"))
FIRST = [(A, None), (B, None), (C, None), (A, "pending"), (B, "shipped"), (A, "confirmed")]

#: Records of the first life on the partition of A.
ON_A = 5

#: Written while the consumer is behind.
WAITING = [(A, "delivered"), (B, "cancelled")]

#: What comes to the log after its end was lost, on the same partition.
SECOND = [(order_id, None) for order_id in OTHERS]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node.started(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def life(node: Node) -> Iterator[Life]:
    """A consumer that has applied the first events."""
    with Life.of(node.settings(poll_max_records=1)) as life:
        life.write(*FIRST)
        life.wait_until_applied()
        life.remember()
        yield life


@contextmanager
def down(node: Node, how: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """The broker is down for the block."""
    node.stop(how)
    try:
        yield
    finally:
        node.start()


def cut(node: Node, life: Life, keep: int) -> None:
    node.cut(life.settings.topic, partition_of(A.encode()), keep)


@pytest.mark.parametrize(
    ("consumer", "count"),
    [("idle", 0), ("idle", 1), ("idle", 8), ("behind", 0), ("behind", 8), ("stopped", 0), ("stopped", 8)],
)
def test_a_log_that_is_cut_is_noticed_whatever_is_written_to_it(
    node: Node, life: Life, figures: Figures, consumer: str, count: int
) -> None:
    """With more records than were cut, the consumer's offset is in range again, and what is below it is other."""
    with life.in_state(consumer):
        if consumer == "behind":
            life.write(*WAITING)
            life.remember()
        with down(node):
            cut(node, life, keep=2)
        began = time.monotonic()
        life.write(*SECOND[:count])

    life.check(epoch=2)
    figures(f"a log cut, {count} written, consumer {consumer}", applied_after_s=time.monotonic() - began)
    assert len(life.lost()) >= ON_A - 2
    assert len(life.alerts()) == 1


def test_a_log_that_is_cut_by_a_kill_is_noticed(node: Node, life: Life) -> None:
    with down(node, signal.SIGKILL):
        cut(node, life, keep=ON_A - 1)
    life.write(*SECOND)

    life.check(epoch=2)
    assert len(life.lost()) == 1


def test_what_is_cut_before_it_was_applied_is_noticed_too(node: Node, life: Life) -> None:
    """All that was applied is still there, so no record that was applied can tell it."""
    with frozen(life.pid):
        life.write(WAITING[0])  # It answers the fetch that waits: the next one brings all the others.
        life.write_many(*WAITING * 1_500)
        life.remember()
    until(lambda: life.applied() > len(FIRST) + 1, "the consumer has seen how far the log reaches", within_s=5)
    with life.held_up():
        assert life.applied() < 1_000, "the consumer was too quick for this test"
        with down(node):
            cut(node, life, keep=ON_A + 1 + 2_900)
        life.write_many(*[(order_id, None) for order_id in beside(A, 241)[1:]])

    life.check(epoch=2)
    assert life.lost() == []
    (detail,) = life.alerts()
    assert "Records are gone that were there and had not been applied yet" in detail


def test_a_cut_behind_a_record_that_cannot_be_read_any_more_is_noticed_too(node: Node, life: Life) -> None:
    """Behind it reading goes on uncompared, so no record vouches for what was applied."""
    partition = partition_of(A.encode())
    with down(node):
        segment = node.segment(life.settings.topic, partition)
        last = segment.read(ON_A - 1)
        segment.replace(ON_A - 1, last[:-1] + bytes([last[-1] ^ 1]))
    until(lambda: life.alerts("unreadable_record"), "reading goes on behind it", within_s=15)
    until(lambda: life.logged("partitions.assigned")[2:], "the partitions are read again", within_s=15)

    with down(node):
        cut(node, life, keep=ON_A - 1)
    life.write(*SECOND)

    life.check(epoch=2)
    (detail,) = life.alerts()
    assert "Records are gone" in detail


@pytest.mark.parametrize("consumer", ["idle", "stopped"])
def test_a_log_that_is_put_back_from_a_copy_is_noticed(node: Node, life: Life, consumer: str) -> None:
    """It has the epochs of its leaders again that it had, so Kafka's own check finds nothing."""
    with down(node):
        copy = node.copy()
    life.write(*WAITING)
    life.wait_until_applied()
    life.remember()

    with life.in_state(consumer):
        with down(node):
            node.put_back(copy)
        life.write(*SECOND)

    life.check(epoch=2)
    assert len(life.lost()) == len(WAITING)
    (detail,) = life.alerts()
    assert f"At offset {ON_A + 1} of partition {partition_of(A.encode())}" in detail


@pytest.mark.parametrize(
    ("consumer", "count"), [("idle", 0), ("idle", ON_A), ("idle", 8), ("behind", 8), ("stopped", 8)]
)
def test_another_cluster_behind_the_address_is_noticed(node: Node, life: Life, consumer: str, count: int) -> None:
    with life.in_state(consumer):
        with down(node):
            node.remove()
        ensure_topic(life.settings, "test")
        life.write(*SECOND[:count])

    life.check(epoch=2)
    (detail,) = life.alerts()
    assert "has id" in detail


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_restart_with_the_log_intact_is_none(node: Node, life: Life, figures: Figures, how: signal.Signals) -> None:
    """Nothing is read again, no epoch is opened, and the wait for the broker takes no CPU."""
    cpu_s, began = life.cpu_s(), time.monotonic()
    with down(node, how):
        time.sleep(1)
    back = time.monotonic()
    life.write(*WAITING)
    life.wait_until_applied()

    share = (life.cpu_s() - cpu_s) / (time.monotonic() - began)
    figures(f"broker {how.name}, log intact", back_after_s=time.monotonic() - back, cpu_share=share)
    life.check(epoch=1)
    assert life.alerts() == []
    assert len(life.logged("log.doubted")) <= 2
    assert share < 0.5


def test_a_broker_that_hangs_and_goes_on_is_none(node: Node, life: Life) -> None:
    """Long enough for the client to give its connection up."""
    os.kill(node.pid, signal.SIGSTOP)
    time.sleep(life.settings.session_timeout_s + 3)
    os.kill(node.pid, signal.SIGCONT)
    life.write(*WAITING)
    life.wait_until_applied()

    life.check(epoch=1)
    assert life.alerts() == []
    until(lambda: len(life.logged("log.doubted")) <= 2, "the log is looked at once or twice", within_s=1)
