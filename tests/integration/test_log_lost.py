"""The topic made anew, or cut at its start, while the order consumer runs: noticed at once, replayed, nothing twice."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from orderflow.broker import PARTITIONS, Subscription, ensure_topic, partition_of
from orderflow.errors import LogInDoubt
from tests.support.lost_log import SHORT, Life, beside
from tests.support.messages import admin
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.broker import Topic
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


@pytest.mark.parametrize(
    ("consumer", "count"), [("idle", 0), ("idle", 3), ("idle", 8), ("behind", 0), ("behind", 8), ("stopped", 8)]
)
def test_a_topic_that_is_made_anew_is_noticed_whatever_is_written_to_it(life: Life, consumer: str, count: int) -> None:
    """With more records than the old one had, an offset goes on where it stopped, and finds the records of others."""
    with life.in_state(consumer):
        if consumer == "behind":
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

    until(life.alerts, "the alert is there", within_s=10)
    life.write(*SECOND)
    life.check(epoch=2)


def test_partitions_that_were_shared_out_while_the_topic_was_gone_are_shared_out_again(settings: Settings) -> None:
    """A static member that comes back is given what it had, and that was nothing."""
    given: list[list[int]] = []

    def poll_until_given(topic: Topic, wanted: list[int]) -> None:
        with closing(Subscription(settings, topic, {}, lambda partitions: given.append(sorted(partitions)))) as one:
            until(lambda: _polled(one) and given[-1:] == [wanted], f"{wanted} are given", within_s=10)
            if wanted and not given[1:]:
                with admin(settings) as client:
                    client.delete_topics([settings.topic])
                until(lambda: _polled(one) and given[-1] == [], "nothing is given", within_s=10)

    everything = list(range(PARTITIONS))
    poll_until_given(ensure_topic(settings, "test"), everything)
    poll_until_given(ensure_topic(settings, "test"), everything)


def test_a_topic_that_is_gone_before_anything_was_fetched_is_noticed(settings: Settings) -> None:
    """There is no leader to fetch from, so no fetch can tell it."""
    topic = ensure_topic(settings, "test")
    with admin(settings) as client:
        client.delete_topics([settings.topic])

    with closing(Subscription(settings, topic, {})) as subscription, pytest.raises(LogInDoubt):
        until(subscription.poll, "a doubt is raised", within_s=10)


def _polled(subscription: Subscription) -> bool:
    with suppress(LogInDoubt):
        subscription.poll()
    return True


def test_a_start_that_moves_past_a_consumer_that_is_behind_is_noticed(life: Life) -> None:
    """Nobody knows what stood there. What is left is read, and what is known already is not applied again."""
    with life.held_up():
        life.write(*WAITING, *SECOND)
        life.remember()
        life.delete_records(A, before=len(FIRST) - 1 + len(WAITING) + 2)

    life.check(epoch=2)
    assert life.alerts("log_starts_late") == [f"Partition {partition_of(b'a')} begins at offset 9."]
