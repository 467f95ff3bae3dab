"""The traps of Kafka's client that orderflow stands on knowing, each against a real broker (docs/adr)."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from kafka import TopicPartition

from orderflow.broker import PARTITIONS, Subscription, ensure_topic, locate_unreadable, log_reader, partition_of
from orderflow.broker.fetching import End
from orderflow.broker.log_reader import LogReader
from orderflow.broker.probing import verify_ends
from orderflow.broker.topic import CONFIG
from orderflow.errors import BrokerError, LogReplaced, TopicMisconfigured, Unreadable
from orderflow.records import Anchor, Position, Record
from orderflow.stack import free_ports
from tests.support.messages import NotUtf8, admin, produce
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.broker import Topic
    from orderflow.settings import Settings
    from tests.conftest import Figures
    from tests.support.broker import Broker

#: From the subscription's start to its first records: it joins its group first.
JOIN_S = 15.0


@contextmanager
def subscribed(
    settings: Settings, topic: Topic, positions: dict[int, Position] | None = None
) -> Iterator[Subscription]:
    subscription = Subscription(settings, topic, {} if positions is None else positions)
    try:
        yield subscription
    finally:
        subscription.close()


def poll_until(subscription: Subscription, count: int) -> list[Record]:
    """Poll until so many records have come."""
    records: list[Record] = []

    def polled() -> bool:
        records.extend(subscription.poll())
        return len(records) >= count

    until(polled, f"{count} records are polled", JOIN_S)
    return records


def poll_until_it_raises(subscription: Subscription) -> list[Record]:
    """Poll until something is raised, and let it out; the test fails when nothing is."""
    records: list[Record] = []
    until(lambda: records.extend(subscription.poll()), f"poll() raises; it gave {records}", JOIN_S)
    return records


# The topic.


def test_the_topic_is_made_as_it_must_be_and_found_again(broker: Broker) -> None:
    settings = broker.settings()

    made = ensure_topic(settings, "test")

    assert (made.name, made.partitions) == (settings.topic, PARTITIONS)
    assert ensure_topic(settings, "test") == made
    produce(settings, [{"key": b"k", "value": b"v", "timestamp_ms": 1_000}])
    with subscribed(settings, made) as subscription:
        (record,) = poll_until(subscription, 1)
    assert abs(record.logged_at / 1_000 - time.time()) < 60, "the broker's clock stamps records, not the sender's"


@pytest.mark.parametrize(
    ("partitions", "configs", "said"),
    [
        (3, {}, "has 3 partitions, and orderflow needs exactly 6"),
        (PARTITIONS, {"retention.ms": "604800000"}, "has retention.ms=604800000, and orderflow needs retention.ms=-1"),
        (PARTITIONS, {"cleanup.policy": "compact"}, "has cleanup.policy=compact, and orderflow needs"),
        (PARTITIONS, {"message.timestamp.type": "CreateTime"}, "orderflow needs message.timestamp.type=LogAppendTime"),
    ],
)
def test_a_topic_that_would_break_a_guarantee_is_told_in_plain_words(
    broker: Broker, partitions: int, configs: dict[str, str], said: str
) -> None:
    settings = broker.settings()
    with admin(settings) as client:
        new = {"num_partitions": partitions, "replication_factor": 1, "configs": CONFIG | configs}
        client.create_topics({settings.topic: new}, wait_for_metadata=True)

    with pytest.raises(TopicMisconfigured) as caught:
        ensure_topic(settings, "test")

    assert said in str(caught.value)
    assert settings.topic in str(caught.value)


@pytest.fixture
def _no_log_records(caplog: pytest.LogCaptureFixture) -> None:
    """Keep pytest from keeping the client's log records: their errors hold on to sockets."""
    caplog.set_level(logging.CRITICAL + 1, logger="kafka")


@pytest.mark.usefixtures("_no_log_records")
def test_asking_a_dead_port_ends_in_time_and_leaks_nothing(broker: Broker, figures: Figures) -> None:
    (nobody,) = free_ports(1)
    settings = broker.settings(kafka_bootstrap_servers=f"127.0.0.1:{nobody}", kafka_request_timeout_s=0.3)
    _ask_in_vain(settings)  # what is loaded or made once does not count
    threads, descriptors = set(threading.enumerate()), _descriptors()

    took = [_ask_in_vain(settings) for _ in range(20)]

    until(lambda: set(threading.enumerate()) <= threads, "the threads of the 20 clients are gone", within_s=2)
    assert _descriptors() <= descriptors
    assert max(took) < settings.kafka_request_timeout_s + 1
    figures("ensure_topic on a dead port", max_s=max(took))


@pytest.mark.usefixtures("_no_log_records")
def test_asking_a_frozen_broker_ends_in_time_and_leaks_nothing(broker: Broker, figures: Figures) -> None:
    settings = broker.settings(kafka_request_timeout_s=0.5)
    ensure_topic(settings, "test")
    threads, descriptors = set(threading.enumerate()), _descriptors()

    with frozen(broker.pid):
        took = [_ask_in_vain(settings) for _ in range(5)]

    until(lambda: set(threading.enumerate()) <= threads, "the threads of the clients are gone", within_s=2)
    assert _descriptors() <= descriptors
    assert max(took) < 3 * settings.kafka_request_timeout_s + 1
    assert ensure_topic(settings, "test").partitions == PARTITIONS
    figures("ensure_topic on a frozen broker", max_s=max(took))


def _descriptors() -> int:
    """How many are open; the sockets of a client's cancelled tasks are closed when Python collects them."""
    gc.collect()
    return int(psutil.Process().num_fds())


def _ask_in_vain(settings: Settings) -> float:
    began = time.monotonic()
    with pytest.raises(BrokerError, match="did not answer"):
        ensure_topic(settings, "test")
    return time.monotonic() - began


# What cannot be read.


def test_a_header_name_that_is_not_utf8_damages_no_other_record(broker: Broker) -> None:
    """kafka-python's own reader raises for it, and for all that stands behind it in the batch."""
    settings = broker.settings()
    topic = ensure_topic(settings, "test")
    good: dict[str, Any] = {"key": b"k", "value": b"good", "partition": 2}
    bad = good | {"headers": [(NotUtf8("x"), b"y")]}
    places = produce(settings, [good, good, bad, good, bad, good])
    assert [offset for _, offset in places] == list(range(6))

    with subscribed(settings, topic) as subscription:
        records = poll_until(subscription, 6)

    assert [record.offset for record in records] == list(range(6))
    assert [record.offset for record in records if record.damage] == [2, 4]


def without_lz4(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the codec is not installed: such a batch cannot be read."""
    monkeypatch.setattr("kafka.codec.has_lz4", lambda: False)


def test_a_batch_that_cannot_be_read_is_located_exactly(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = broker.settings()
    topic = ensure_topic(settings, "test")
    good: dict[str, Any] = {"key": b"k", "value": b"good" * 200, "partition": 2}
    for codec, count in ((None, 2), ("lz4", 2), (None, 1)):
        produce(settings, [good] * count, compression_type=codec)
    without_lz4(monkeypatch)

    with subscribed(settings, topic) as subscription, pytest.raises(Unreadable) as caught:
        poll_until_it_raises(subscription)

    assert caught.value.at[2] <= 2
    located = locate_unreadable(settings, topic, {2: 2})
    assert [(one.partition, one.offset) for one in located] == [(2, 2), (2, 3)]
    assert "lz4" in located[0].error
    assert locate_unreadable(settings, topic, {2: 4}) == []
    with subscribed(settings, topic, {2: Position(4)}) as subscription:
        assert [record.offset for record in poll_until(subscription, 1)] == [4]


def test_the_offset_reached_leads_to_the_batch_that_cannot_be_read(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the order consumer does it: skip what was located, apply what comes before it, subscribe again."""
    settings = broker.settings(poll_timeout_s=0.3)
    topic = ensure_topic(settings, "test")
    for codec, count in ((None, 1), ("lz4", 2), (None, 1)):
        for number in (0, 3):
            produce(
                settings, [{"key": b"k", "value": b"good" * 200, "partition": number}] * count, compression_type=codec
            )
    without_lz4(monkeypatch)
    positions: dict[int, Position] = {}
    read, skipped = [], []

    for _ in range(6):
        with subscribed(settings, topic, positions) as subscription:
            try:
                while len(read) < 4:
                    for record in poll_until(subscription, 1):
                        read.append((record.partition, record.offset))
                        positions[record.partition] = Position(record.offset + 1)
            except Unreadable as error:
                reached = error.at
            else:
                break
        for one in locate_unreadable(settings, topic, reached):
            skipped.append((one.partition, one.offset))
            positions[one.partition] = Position(one.offset + 1)

    assert sorted(read) == [(0, 0), (0, 3), (3, 0), (3, 3)]
    assert sorted(skipped) == [(0, 1), (0, 2), (3, 1), (3, 2)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_can_be_read(broker: Broker, codec: str) -> None:
    settings = broker.settings()
    topic = ensure_topic(settings, "test")
    values = [(f"{number} ".encode() * 200) for number in range(30)]
    produce(settings, [{"key": b"k", "value": value} for value in values], compression_type=codec)

    with subscribed(settings, topic) as subscription:
        records = poll_until(subscription, len(values))

    assert [record.value for record in records] == values


# A log that is not the one that was applied.


def _filled(broker: Broker, count: int) -> tuple[Settings, Topic, list[Record]]:
    """Make a topic with some records on one partition, read by a subscription."""
    settings = broker.settings(poll_timeout_s=0.2)
    topic = ensure_topic(settings, "test")
    produce(settings, [{"key": b"k", "value": f"first life {number}".encode()} for number in range(count)])
    with subscribed(settings, topic) as subscription:
        return settings, topic, poll_until(subscription, count)


def _behind(record: Record) -> dict[int, Position]:
    """Where reading goes on once this record was the last that was applied."""
    return {record.partition: Position(record.offset + 1, Anchor(record.offset, record.checksum()))}


def test_reading_goes_on_behind_the_last_record_that_was_applied(broker: Broker) -> None:
    settings, topic, records = _filled(broker, 5)

    with subscribed(settings, topic, _behind(records[2])) as subscription:
        assert poll_until(subscription, 2) == records[3:]


def test_a_truncated_log_is_not_walked_past(broker: Broker) -> None:
    settings, topic, records = _filled(broker, 5)
    partition = records[0].partition

    with (
        subscribed(settings, topic, {partition: Position(100, Anchor(99, 1))}) as subscription,
        pytest.raises(LogReplaced, match="no longer holds the offsets that were applied"),
    ):
        poll_until_it_raises(subscription)


def test_a_log_whose_start_was_deleted_is_not_walked_past(broker: Broker) -> None:
    settings, topic, records = _filled(broker, 5)
    with admin(settings) as client:
        client.delete_records({TopicPartition(topic.name, records[0].partition): 4})

    with subscribed(settings, topic, _behind(records[1])) as subscription, pytest.raises(LogReplaced):
        poll_until_it_raises(subscription)


@pytest.mark.parametrize("count", [0, 2, 8])
def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(broker: Broker, count: int) -> None:
    settings, old, records = _filled(broker, 5)
    with admin(settings) as client:
        client.delete_topics([old.name])
    new = until(lambda: _made_anew(settings, old), "the topic is made anew", within_s=15, every_s=0.1)
    produce(settings, [{"key": b"k", "value": f"second life {number}".encode()} for number in range(count)])

    # Not only its id tells: the records do, too.
    with subscribed(settings, new, _behind(records[-1])) as subscription, pytest.raises(LogReplaced):
        poll_until_it_raises(subscription)


def _made_anew(settings: Settings, old: Topic) -> Topic | None:
    """Kafka deletes a topic some time after it said so; until then the old one may still be found."""
    try:
        found = ensure_topic(settings, "test")
    except BrokerError:
        return None
    return found if found.topic_id != old.topic_id else None


def test_polling_a_frozen_broker_ends_in_time_and_goes_on_later(broker: Broker, figures: Figures) -> None:
    settings = broker.settings(poll_timeout_s=0.3)
    topic = ensure_topic(settings, "test")
    key = b"k"
    produce(settings, [{"key": key, "value": b"before"}])
    positions: dict[int, Position] = {}

    with subscribed(settings, topic, positions) as subscription:
        (record,) = poll_until(subscription, 1)
        positions.update(_behind(record))
        with frozen(broker.pid):
            took = []
            for _ in range(5):
                began = time.monotonic()
                assert subscription.poll() == []
                took.append(time.monotonic() - began)
        produce(settings, [{"key": key, "value": b"after"}])
        (record,) = poll_until(subscription, 1)

    assert (record.partition, record.value) == (partition_of(key), b"after")
    assert max(took) < settings.poll_timeout_s + 1
    figures("poll on a frozen broker", max_s=max(took))


def test_polling_while_a_heartbeat_is_unanswered_takes_no_cpu(broker: Broker, figures: Figures) -> None:
    """kafka-python alone spins from the moment in which the next heartbeat is due until the last one times out."""
    settings = broker.settings(poll_timeout_s=0.3, session_timeout_s=6.0)
    topic = ensure_topic(settings, "test")
    produce(settings, [{"key": b"k", "value": b"v"}])
    overdue_s = settings.session_timeout_s / 5 * 2

    with subscribed(settings, topic, {}) as subscription:
        poll_until(subscription, 1)
        with frozen(broker.pid):
            began = time.monotonic()
            poll_for(subscription, overdue_s)
            cpu = time.process_time()
            poll_for(subscription, 3.0)
            cpu_s, took_s = time.process_time() - cpu, time.monotonic() - began - overdue_s

    figures("poll while a heartbeat is unanswered", cpu_share=cpu_s / took_s)
    assert cpu_s < took_s / 5


def poll_for(subscription: Subscription, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        assert subscription.poll() == []


def test_a_subscription_closes_in_time_while_the_broker_is_frozen(broker: Broker, figures: Figures) -> None:
    settings = broker.settings(poll_timeout_s=0.3)
    topic = ensure_topic(settings, "test")
    produce(settings, [{"key": b"k", "value": b"v"}])
    subscription = Subscription(settings, topic, {})
    poll_until(subscription, 1)

    with frozen(broker.pid):
        began = time.monotonic()
        subscription.close()
        took_s = time.monotonic() - began

    assert took_s < 3
    figures("close on a frozen broker", took_s=took_s)


# Looking into the log.


def test_a_batch_that_cannot_be_read_does_not_hide_how_far_the_log_reaches(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands exactly where the records ended that were seen; else the subscription would be in doubt for good."""
    settings = broker.settings()
    topic = ensure_topic(settings, "test")
    for number in (0, 2):
        for codec in (None, "lz4"):
            produce(settings, [{"key": b"k", "value": b"good" * 200, "partition": number}], compression_type=codec)
    without_lz4(monkeypatch)

    verify_ends(settings, topic, {number: End(1, 0) for number in (0, 2)} | {1: End(0, 0)})
    with pytest.raises(LogReplaced):
        verify_ends(settings, topic, {0: End(1, 0), 2: End(5, 0)})


def drop_connections(reader: LogReader) -> None:
    """As a broker that restarts does."""
    for connection in [*reader._fetcher._manager._conns.values()]:
        connection.transport._sock.shutdown(socket.SHUT_RDWR)


def test_a_log_is_read_on_over_another_connection(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that fetches nothing more in doubt would be taken for a broker that is silent."""
    settings = broker.settings()
    topic = ensure_topic(settings, "test")
    for number in (0, 1):
        produce(settings, [{"value": b"v", "partition": number}] * 9)
    monkeypatch.setattr(log_reader, "RECORDS_AT_ONCE", 1)

    with LogReader(settings, topic, "test") as log:
        reading = log.read(0, 0, 9)
        before = [next(reading).offset for _ in range(4)]
        drop_connections(log)
        behind = [record.offset for record in reading]
        log._fetcher._doubt = "a late answer for partition 0 came over another connection"
        other = [record.offset for record in log.read(1, 0, 9)]

    assert before + behind == other == [*range(9)]
