"""The relay against a real broker: what waits comes to the topic in order per order, once, whatever is in its way."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from kafka.admin import ConfigResource, ConfigResourceType

from orderflow.broker import PARTITIONS, Producer, ensure_topic
from orderflow.broker.topic import CONFIG
from orderflow.process import read_heartbeat
from orderflow.store.alerts import Alerts
from orderflow.store.outbox_desk import OutboxDesk
from outbox_relay.relay import PROGRAM
from tests.support.messages import admin, message
from tests.support.relays import SHORT, fill, relaying, wait_until_empty
from tests.support.topic import read_topic
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.broker.requests import Result
    from orderflow.messages import Message
    from orderflow.settings import Settings
    from tests.conftest import Figures
    from tests.support.broker import Broker


def event_ids(settings: Settings, order_id: str | None = None) -> list[str]:
    return [r.event_id for r in read_topic(settings) if order_id is None or r.key == order_id.encode()]


def test_all_is_delivered_in_order_per_order_and_once(broker: Broker, figures: Figures) -> None:
    settings = broker.settings()
    messages = [message(f"order-{number % 700}") for number in range(5_000)]
    outbox = fill(settings, messages)
    ensure_topic(settings, "test")

    began = time.monotonic()
    with relaying(settings):
        wait_until_empty(outbox)
        took_s = time.monotonic() - began

    records = read_topic(settings)
    assert len(records) == len(messages)
    for order in {one.order_id for one in messages}:
        mine = [one.event_id for one in messages if one.order_id == order]
        assert [r.event_id for r in records if r.key == order.encode()] == mine
    places = {record.event_id: record.place for record in records}
    for entry in OutboxDesk(settings).entries(("delivered",), limit=10_000):
        assert places[entry.event_id] == (entry.partition, entry.offset)
    figures("relay drains 5,000 events of 700 orders", events_per_s=round(len(messages) / took_s))


def test_the_headers_come_to_the_topic_as_they_were(broker: Broker) -> None:
    settings = broker.settings()
    one = message("order-1")
    outbox = fill(settings, [one])

    with relaying(settings):
        wait_until_empty(outbox)

    (record,) = read_topic(settings)
    assert (record.key, record.value, record.headers) == (one.key, one.value, one.headers)


def test_a_frozen_broker_is_waited_for_and_order_is_kept(broker: Broker) -> None:
    """What was on its way may come twice; the first copies are in order."""
    settings = broker.settings(**SHORT)
    ensure_topic(settings, "test")
    first = [message(f"order-{number % 5}") for number in range(20)]
    later = [message(f"order-{number % 5}") for number in range(20)]
    outbox = fill(settings, first)

    with relaying(settings):
        wait_until_empty(outbox)
        with frozen(broker.pid):
            outbox.add([(one, False) for one in later])
            until(lambda: (beat := read_heartbeat(settings, PROGRAM)) and beat.waits_for, "it waits for Kafka", 10)
            time.sleep(1)
            assert outbox.totals().waiting == len(later)
            sent = [entry.sent for entry in OutboxDesk(settings).entries(("waiting",))]
        wait_until_empty(outbox)

    assert sent[:5] == [1] * 5, "one of each order was on its way"
    assert not any(sent[5:]), "and no other"
    records = read_topic(settings)
    for order in {one.order_id for one in first}:
        seen = list(dict.fromkeys(r.event_id for r in records if r.key == order.encode()))
        assert seen == [one.event_id for one in [*first, *later] if one.order_id == order]


def test_an_event_that_kafka_refuses_for_good_holds_its_order_only(broker: Broker) -> None:
    """Until it is retried, once its reason is mended, or discarded."""
    settings = broker.settings(**SHORT)
    with admin(settings) as client:
        new = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": CONFIG | {"max.message.bytes": "4096"}}
        client.create_topics({settings.topic: new}, wait_for_metadata=True)
    desk = OutboxDesk(settings)
    poisoned = [message("order-bad", padding=8_000), message("order-worse", padding=8_000)]
    behind = [message("order-bad"), message("order-worse")]
    others = [message(f"order-{number}") for number in range(50)]
    outbox = fill(settings, [*others[:25], *poisoned, *behind, *others[25:]])

    with relaying(settings):
        until(lambda: outbox.totals().delivered == len(others), "the others are delivered", 20)
        until(lambda: outbox.totals().held == 2, "the poisoned ones are held", 5)
        alert = until(lambda: Alerts(settings).rows(), "an alert is open", 5)[0]
        assert [entry.state for entry in desk.entries(("waiting",))] == ["waiting"] * 2
        desk.discard([desk.find(poisoned[0].event_id)[0].seq], "kim", "too large")
        until(lambda: outbox.totals().delivered == len(others) + 1, "what was behind it goes on", 10)
        raise_limit(settings)
        desk.retry(desk.held())
        wait_until_empty(outbox)
        until(lambda: not Alerts(settings).rows(), "the alert is resolved", 5)

    assert (alert.cause, alert.affected) == ("event_held", 2)
    assert event_ids(settings, "order-bad") == [behind[0].event_id]
    assert event_ids(settings, "order-worse") == [poisoned[1].event_id, behind[1].event_id]


def raise_limit(settings: Settings) -> None:
    with admin(settings) as client:
        client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, settings.topic, CONFIG | {"max.message.bytes": "100000"})]
        )


class Failing(Producer):
    """Raises for one order, as a bug would."""

    def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
        if any(one.order_id == "order-bad" for one in messages):
            raise RuntimeError("a bug")
        return super().deliver(messages, timeout_s)


def test_an_error_that_nobody_foresaw_costs_the_event_that_raises_it(broker: Broker) -> None:
    settings = broker.settings()
    outbox = fill(settings, [message("order-1"), message("order-bad"), message("order-2")])

    with relaying(settings, Failing(settings, "test")):
        wait_until_empty(outbox)

    (held,) = OutboxDesk(settings).entries(("held",))
    assert held.order_id == "order-bad"
    assert "a bug" in (held.reason or "")
    assert len(event_ids(settings)) == 2


def test_what_was_delivered_is_not_sent_again_while_it_cannot_be_noted(broker: Broker) -> None:
    """The outbox is locked from the acknowledgement on."""
    settings = broker.settings(**SHORT, outbox_busy_timeout_s=0.1)
    ensure_topic(settings, "test")
    outbox = fill(settings, [message(f"order-{number}") for number in range(10)])
    locker = sqlite3.connect(settings.outbox_db, isolation_level=None, check_same_thread=False)

    class Locking(Producer):
        def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
            results = super().deliver(messages, timeout_s)
            if not locker.in_transaction:
                locker.execute("BEGIN IMMEDIATE")
            return results

    with relaying(settings, Locking(settings, "test")):
        until(
            lambda: (beat := read_heartbeat(settings, PROGRAM)) and "outbox" in (beat.waits_for or ""), "it waits", 10
        )
        time.sleep(0.5)
        assert len(event_ids(settings)) == 10
        locker.execute("ROLLBACK")
        wait_until_empty(outbox)
    locker.close()

    assert len(event_ids(settings)) == 10


def test_delivered_events_are_removed_in_the_end(broker: Broker) -> None:
    settings = broker.settings(outbox_keep_delivered_s=0.5)
    outbox = fill(settings, [message("order-1")])

    with relaying(settings):
        wait_until_empty(outbox)
        until(lambda: outbox.totals().delivered == 0, "it is removed", within_s=10)

    assert outbox.totals().delivered_ever == 1


def test_an_error_of_the_machine_holds_nothing(broker: Broker) -> None:
    """No descriptor is free for a while, say: that is no event's fault. It may have been sent, and says so."""
    settings = broker.settings(**SHORT)
    outbox = fill(settings, [message(f"order-{number}") for number in range(5)])
    broken = threading.Event()
    broken.set()

    class Breaking(Producer):
        def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
            if broken.is_set():
                raise OSError(24, "Too many open files")
            return super().deliver(messages, timeout_s)

    with relaying(settings, Breaking(settings, "test")):
        until(lambda: (beat := read_heartbeat(settings, PROGRAM)) and beat.waits_for, "it waits", 10)
        time.sleep(1)
        tried = OutboxDesk(settings).entries(("waiting",))
        broken.clear()
        wait_until_empty(outbox)

    assert [entry.sent for entry in tried] == [1] * 5
    assert len(event_ids(settings)) == 5


def test_one_busy_order_holds_up_no_other(broker: Broker, figures: Figures) -> None:
    """Of it one event is on its way at a time; the others do not wait until all of its are delivered."""
    settings = broker.settings(relay_batch_max=100)
    ensure_topic(settings, "test")
    busy = [message("order-busy") for _ in range(1_500)]
    others = [message(f"order-{number}") for number in range(300)]
    outbox = fill(settings, [*busy, *others])

    with relaying(settings):
        wait_until_empty(outbox)

    records = read_topic(settings)
    busy_at = {one.event_id for one in busy[750:]}
    delivered = OutboxDesk(settings).entries(("delivered",), limit=10_000)
    last_other = max(entry.settled_at or 0 for entry in delivered if entry.order_id != "order-busy")
    half_of_busy = min(entry.settled_at or 0 for entry in delivered if entry.event_id in busy_at)
    figures("1,500 events of one order ahead of 300 others", others_ahead_of_its_half_ms=half_of_busy - last_other)
    assert len(records) == len(busy) + len(others)
    assert [r.event_id for r in records if r.key == b"order-busy"] == [one.event_id for one in busy]
    assert last_other < half_of_busy
