"""What the log lost, sent again: under its ids, in sequence, once; no order changes, the log alone makes them again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.broker import partition_of
from tests.support import store
from tests.support.command import asked, orderflow
from tests.support.lost_log import SHORT, Life
from tests.support.messages import message, produce
from tests.support.relays import fill, relaying, wait_until_empty
from tests.support.topic import read_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.broker import Broker

A = "a"
B = next(name for name in ("b", "c", "d", "e") if partition_of(name.encode()) != partition_of(b"a"))
FIRST = [(A, None), (B, None), (A, "pending"), (B, "shipped"), (A, "confirmed")]


#: The events that were changed by hand.
CHANGED = "SELECT order_id, event_id FROM history WHERE epoch = 1 AND payload LIKE '%delivered%'"


@contextmanager
def begun(broker: Broker, **settings: Any) -> Iterator[Life]:
    """A consumer that has applied the first events."""
    with Life.of(broker.settings(**SHORT, **settings)) as life:
        life.write(*FIRST)
        life.wait_until_applied()
        yield life


@pytest.fixture
def life(broker: Broker) -> Iterator[Life]:
    with begun(broker) as life:
        yield life


def lose(life: Life) -> None:
    life.remember()
    life.make_topic_anew()
    life.wait_until_applied(epoch=2)


def ids(life: Life, order_id: str) -> list[str]:
    """The ids of an order's events, as they are on the topic."""
    return [record.event_id for record in read_topic(life.settings) if record.order_id == order_id]


def applied_ids(life: Life, order_id: str) -> list[str]:
    """The ids that an order's events go by, in the sequence of places."""
    rows = store.query(life.settings, "SELECT order_id, event_id FROM history ORDER BY epoch, offset")
    return [event_id for name, event_id in rows if name == order_id]


def orders(life: Life) -> list[Any]:
    return store.query(life.settings, "SELECT * FROM orders ORDER BY order_id")


def statuses(life: Life) -> dict[str, str]:
    return dict(store.query(life.settings, "SELECT order_id, status FROM orders"))


def build_from_the_log_alone(life: Life) -> dict[str, str]:
    with life.stopped():
        asked(life, "rebuild", "--from-scratch")  # It refuses to drop what is lost.
    return statuses(life)


@pytest.mark.faults
def test_what_was_lost_is_sent_once_and_the_log_makes_the_orders_again(life: Life) -> None:
    """Also what had come to the lost log through the outbox, which has an event once, and what came without an id."""
    last = message(A, "delivered")
    with closing(fill(life.settings, [last])) as outbox, relaying(life.settings):
        wait_until_empty(outbox)
    plain = {"type": "order.status_changed", "order_id": B, "status": "cancelled"}
    produce(life.settings, [{"key": B.encode(), "value": json.dumps(plain).encode()}])
    life.wait_until_applied()
    wanted = {order_id: applied_ids(life, order_id) for order_id in (A, B)}
    assert wanted[A][-1] == last.event_id
    life.make_topic_anew()
    life.wait_until_applied(epoch=2)
    before, count = orders(life), len(FIRST) + 2

    assert asked(life, "republish", "--dry-run")["lost"] == count
    assert "say --yes" in orderflow(life, "republish", code=1)
    with life.stopped():
        refused = orderflow(life, "rebuild", "--from-scratch", code=1)
    assert f"has {count} events that are not known to be on the topic any more" in refused
    assert store.undelivered(life.settings) == 0
    added = asked(life, "republish", "--yes", "--wait", "0", code=1)
    assert (added["added"], added["underWay"], added["left"]) == (count, 0, count)
    again = asked(life, "republish", "--yes", "--wait", "0", code=1)
    assert (again["added"], again["underWay"], again["left"]) == (0, count, count)
    with relaying(life.settings):
        assert asked(life, "republish", "--yes")["left"] == 0

    assert {order_id: ids(life, order_id) for order_id in (A, B)} == wanted
    assert orders(life) == before
    assert set(store.query(life.settings, "SELECT outcome FROM history WHERE epoch = 2")) == {("duplicate",)}
    assert "nothing that was applied is lost" in orderflow(life, "republish", "--yes")
    with life.stopped():
        assert asked(life, "rebuild", "--dry-run")["differences"] == 0
    assert build_from_the_log_alone(life) == {A: "delivered", B: "cancelled"}


def test_an_order_that_has_newer_events_on_the_log_is_named(life: Life) -> None:
    """Here it stays as it is. The log alone ends with what was sent, until its status is set once more."""
    lose(life)
    life.write((A, "shipped"))
    life.wait_until_applied(epoch=2)

    with relaying(life.settings):
        told = orderflow(life, "republish", "--yes")
    assert f"{A}      3     yes" in told
    assert f"{B}      2     no" in told
    assert "1 of these orders have newer events on the log" in told
    life.check(epoch=2)
    assert statuses(life) == {A: "shipped", B: "shipped"}

    life.write((A, "shipped"))
    life.wait_until_applied(epoch=2)
    assert build_from_the_log_alone(life) == {A: "shipped", B: "shipped"}


def test_an_outbox_without_room_for_all_takes_order_by_order(broker: Broker) -> None:
    """And what was changed by hand, so that it would be another event, is left out and named."""
    with begun(broker, outbox_max_events=3) as life:
        lose(life)
        with life.stopped(), closing(sqlite3.connect(life.settings.orders_db)) as connection, connection:
            connection.execute("UPDATE history SET payload = replace(payload, 'shipped', 'delivered')")

        added = asked(life, "republish", "--yes", "--wait", "0", code=1)
        assert (added["added"], added["left"]) == (3, 5)
        with relaying(life.settings):
            done = asked(life, "republish", "--yes", code=1)

        assert [(one["orderId"], one["eventId"]) for one in done["leftOut"]] == [
            tuple(one) for one in store.query(life.settings, CHANGED)
        ]
        assert done["left"] == len(done["leftOut"]) == 1


def test_what_is_lost_is_not_told_before_the_log_was_read(life: Life) -> None:
    with life.held_up():
        life.write((A, "shipped"), (B, "delivered"))
        assert "has 2 records of the topic to read yet" in orderflow(life, "republish", "--wait", "0", code=1)
    life.wait_until_applied()

    with life.stopped():
        with closing(sqlite3.connect(life.settings.orders_db)) as connection, connection:
            connection.execute("UPDATE positions SET last_checksum = last_checksum + 1")
        assert "does not hold what was applied" in orderflow(life, "republish", code=1)
        life.make_topic_anew()
        assert "is not the one that was applied last" in orderflow(life, "republish", code=1)
