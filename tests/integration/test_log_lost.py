"""The topic made anew, or cut at its start, while the order consumer runs: noticed at once, replayed, nothing twice."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from orderflow.broker import partition_of
from tests.support.lost_log import SHORT, Life, beside
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings
    from tests.support.broker import Broker

#: Orders of the first life: two on one partition, one elsewhere.
A, (B, *OTHERS) = "a", beside("a", 9)
C = next(name for name in ("c", "d", "e", "f") if partition_of(name.encode()) != partition_of(b"a"))
FIRST = [(A, None), (B, None), (C, None), (A, "pending"), (B, "shipped"), (A, "confirmed")]

#: Written while the consumer is behind.
WAITING = [(A, "delivered"), (B, "cancelled")]

#: What another log begins with, on the partition of A and B. Taken for what comes next, it would be applied in part.
SECOND = [(order_id, None) for order_id in OTHERS]


@pytest.fixture
def settings(broker: Broker) -> Settings:
    return broker.settings(**SHORT, poll_max_records=1)


@pytest.fixture
def life(settings: Settings) -> Iterator[Life]:
    with Life.of(settings) as life:
        life.write(*FIRST)
        life.wait_until_applied()
        life.remember()
        yield life


@pytest.mark.parametrize("count", [0, 3, 8], ids=["nothing", "less", "more"])
@pytest.mark.parametrize("behind", [False, True], ids=["idle", "behind"])
def test_a_topic_that_is_made_anew_is_noticed_whatever_is_written_to_it(
    life: Life, count: int, *, behind: bool
) -> None:
    """With more records than the old one had, an offset goes on where it stopped, and finds the records of others."""
    with life.held_up() if behind else nullcontext():
        if behind:
            life.write(*WAITING)
            life.remember()
        life.make_topic_anew()
        life.write(*SECOND[:count])

    life.check(epoch=2)
    (detail,) = life.alerts()
    assert "is read again from its start. The topic" in detail
    assert "has id" in detail


def test_a_topic_that_is_deleted_is_noticed_though_nobody_makes_it_anew(life: Life) -> None:
    life.delete_topic()

    until(lambda: life.alerts(), "the alert is there", within_s=10)
    life.write(*SECOND)
    life.check(epoch=2)


def test_a_start_that_moves_past_a_consumer_that_is_behind_is_noticed(life: Life) -> None:
    """Nobody knows what stood there. What is left is read, and what is known already is not applied again."""
    with life.held_up():
        life.write(*WAITING, *SECOND)
        life.remember()
        life.delete_records(A, before=len(FIRST) - 1 + len(WAITING) + 2)

    life.check(epoch=2)
    assert life.alerts("log_starts_late") == [f"Partition {partition_of(b'a')} begins at offset 9."]
