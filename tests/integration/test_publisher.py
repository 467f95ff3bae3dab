"""Publishing to a real broker: what is told of an event is true of the topic, whatever the broker does meanwhile."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from orderflow.broker import Producer, ensure_topic, partition_of
from orderflow.broker.topic import CONFIG, PARTITIONS
from orderflow.errors import RecordRejected, Rejected, Unacknowledged, Unsent
from orderflow.messages import Message, Outcome, Published, Refused, Spooled
from orderflow.publishing.publisher import Publisher
from orderflow.publishing.spool import Spool
from orderflow.stack import free_ports
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from tests.support.broker import Broker
from tests.support.messages import admin, message
from tests.support.topic import read_topic
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.broker.requests import Result
    from orderflow.settings import Settings
    from tests.conftest import Figures

SHORT = {"publish_attempt_timeout_s": 0.5, "publish_deadline_s": 1.5, "publish_retry_first_delay_s": 0.05}

#: From the broker's return to the next acknowledgement.
BACK_S = 3.0


@contextmanager
def publishing(settings: Settings, producer: Producer | None = None) -> Iterator[Publisher]:
    """A publisher with an outbox, whose topic was verified; no relay."""
    outbox = Outbox(settings)
    spool = Spool(outbox)
    spool.refresh(outbox)
    with delivering(settings, producer) as own:
        publisher = Publisher(settings, own, spool)
        publisher.verified()
        yield publisher


@dataclass(frozen=True)
class Cluster:
    """A cluster of two nodes; the first is asked first."""

    broker: Broker
    second_pid: int


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Broker.start(folder) as broker, broker.joined_by(folder) as second_pid:
        yield Cluster(broker, second_pid)


@contextmanager
def delivering(settings: Settings, producer: Producer | None = None) -> Iterator[Producer]:
    producer = producer or Producer(settings, "test")
    try:
        yield producer
    finally:
        producer.drop()


def _topic_of_small_messages(settings: Settings) -> None:
    with admin(settings) as client:
        new = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": CONFIG | {"max.message.bytes": "4096"}}
        client.create_topics({settings.topic: new}, wait_for_metadata=True)
    ensure_topic(settings, "test")


def _event_ids(settings: Settings) -> list[str]:
    return [record.event_id for record in read_topic(settings)]


def test_a_published_event_is_where_the_answer_says(broker: Broker) -> None:
    settings = broker.settings()
    ensure_topic(settings, "test")
    sent = [message(f"order-{number % 7}") for number in range(50)]

    with publishing(settings) as publisher:
        outcomes = [publisher.publish(one) for one in sent]

    records = {record.place: record for record in read_topic(settings)}
    assert len(records) == len(sent)
    for one, outcome in zip(sent, outcomes, strict=True):
        assert isinstance(outcome, Published)
        record = records[outcome.partition, outcome.offset]
        assert (record.key, record.value, record.headers) == (one.key, one.value, one.headers)


@pytest.mark.parametrize("frozen_s", [2.0, 6.0])
def test_publishing_goes_on_after_the_broker_was_frozen_with_a_send_in_flight(
    broker: Broker, figures: Figures, frozen_s: float
) -> None:
    settings = broker.settings(**SHORT)
    ensure_topic(settings, "test")
    told: list[tuple[Message, Outcome]] = []

    with publishing(settings) as publisher:

        def publish(order_id: str) -> Outcome:
            one = message(order_id)
            told.append((one, publisher.publish(one)))
            return told[-1][1]

        assert isinstance(publish("order-1"), Published)
        with frozen(broker.pid):
            since = time.monotonic()
            publish("order-1")
            # A producer that was built anew meanwhile knows no metadata: what it is given was never sent.
            publish("order-2")
            while time.monotonic() - since < frozen_s:
                assert isinstance(publish("order-3"), Spooled)
        thawed = time.monotonic()
        others = (f"order-{number}" for number in itertools.count(4))
        until(lambda: isinstance(publish(next(others)), Published), "an event is published again", within_s=30)
        back_s = time.monotonic() - thawed
        assert isinstance(publish("order-1"), Spooled), "its earlier event waits"

    figures("publisher, broker frozen", frozen_s=frozen_s, back_s=back_s)
    assert back_s < BACK_S
    on_topic = _event_ids(settings)
    spooled = {entry.event_id: entry for entry in OutboxDesk(settings).entries(("waiting",), limit=10_000)}
    assert [bool(spooled[one.event_id].sent) for one, _ in told[1:3]] == [True, False]
    for one, outcome in told:
        if isinstance(outcome, Published):
            assert on_topic.count(one.event_id) == 1
        else:
            assert one.event_id in spooled
            assert spooled[one.event_id].sent or one.event_id not in on_topic


@pytest.mark.faults
def test_without_a_broker_an_event_is_spooled_in_time_and_nothing_is_left_behind(broker: Broker) -> None:
    (nobody,) = free_ports(1)
    settings = broker.settings(**SHORT, kafka_bootstrap_servers=f"127.0.0.1:{nobody}")
    threads = set(threading.enumerate())

    with publishing(settings) as publisher:
        for number in range(5):
            began = time.monotonic()
            assert publisher.publish(message(f"order-{number}")) == Spooled(number)
            assert time.monotonic() - began < settings.publish_deadline_s + 0.5
            time.sleep(settings.breaker_probe_interval_s)  # The next one is a probe, or the first.

    until(lambda: set(threading.enumerate()) <= threads, "the producers' threads are gone", within_s=5)


def test_what_is_too_large_is_refused_for_good_and_its_neighbours_are_published(broker: Broker) -> None:
    settings = broker.settings()
    _topic_of_small_messages(settings)
    # More than the topic takes; more than any topic takes that says nothing itself.
    large = [message("order-large", padding=8_000), message("order-huge", padding=2_000_000)]
    small = [message(f"order-{number}") for number in range(10)]

    with publishing(settings) as publisher, ThreadPoolExecutor(len(large) + len(small)) as pool:
        began = time.monotonic()
        outcomes = list(pool.map(publisher.publish, [*large, *small]))
        took_s = time.monotonic() - began

    for outcome in outcomes[: len(large)]:
        assert isinstance(outcome, Refused)
        assert isinstance(outcome.error, Rejected)
    assert all(isinstance(outcome, Published) for outcome in outcomes[len(large) :])
    assert sorted(_event_ids(settings)) == sorted(one.event_id for one in small)
    assert took_s < 5, "it was tried again, though Kafka would say the same"


def test_one_record_that_is_too_large_spoils_no_other_of_its_batch(broker: Broker) -> None:
    """Kafka refuses the batch as a whole; which record it was is found by asking for each."""
    settings = broker.settings()
    _topic_of_small_messages(settings)
    group = [message("order-1", padding=8_000 if number == 2 else 0) for number in range(5)]

    with delivering(settings) as producer:
        results = producer.deliver(group)

    assert [type(result) for result in results] == [Published, Published, RecordRejected, Published, Published]
    assert _event_ids(settings) == [one.event_id for one in group if one is not group[2]]


def test_a_group_larger_than_a_request_is_published_in_its_sequence(broker: Broker) -> None:
    settings = broker.settings()
    ensure_topic(settings, "test")
    group = [message("order-1", padding=100_000) for _ in range(12)]

    with delivering(settings) as producer:
        results = producer.deliver(group)

    assert results == [Published(partition_of(b"order-1"), offset) for offset in range(12)]
    assert _event_ids(settings) == [one.event_id for one in group]


def test_a_connection_that_was_closed_while_nothing_was_sent_costs_no_event(broker: Broker) -> None:
    """A broker closes idle connections, and all of them when it restarts: the next send must not be lost to one."""
    settings = broker.settings()
    ensure_topic(settings, "test")

    with delivering(settings) as producer:
        assert isinstance(producer.deliver([message("order-1")])[0], Published)
        _close_connections(producer)
        results = producer.deliver([message("order-1")])

    assert isinstance(results[0], Published), "no retry was needed"


def test_metadata_that_are_asked_for_anew_do_not_disturb_a_send(broker: Broker) -> None:
    settings = broker.settings()
    ensure_topic(settings, "test")

    with delivering(settings) as producer:
        assert isinstance(producer.deliver([message("order-1")])[0], Published)
        client = producer._client
        assert client is not None
        client.cluster.config["retry_backoff_ms"] = 0  # They would be asked for again after 0.1 s only.
        refreshed = []

        def send() -> bool:
            """Send one event with metadata asked for; they may come with it, or with the next."""
            client.cluster.request_update()
            assert isinstance(producer.deliver([message("order-1")])[0], Published)
            refreshed.append(client.cluster._last_successful_refresh_ms)
            return len(refreshed) >= 20 and len(set(refreshed)) > 10

        until(send, "metadata came while events were sent", within_s=10, every_s=0)
        assert producer._client is client, "it was not dropped"


def test_a_topic_that_is_not_there_leaves_an_event_unsent(broker: Broker) -> None:
    """It is not made, either: with the settings of a broker's default it would be another one."""
    settings = broker.settings(publish_attempt_timeout_s=0.5)

    with delivering(settings) as producer:
        (result,) = producer.deliver([message("order-1")])

    assert isinstance(result, Unsent)
    assert settings.topic in str(result)
    with admin(settings) as client:
        assert settings.topic not in client.list_topics()


@pytest.mark.parametrize("connected", [False, True], ids=["connected anew", "connected"])
def test_a_node_that_hangs_holds_up_no_other_nodes_events(
    cluster: Cluster, figures: Figures, *, connected: bool
) -> None:
    settings = cluster.broker.settings(publish_attempt_timeout_s=1.0)
    with admin(settings) as client:
        # The first messages are for the node that will hang.
        leaders = {number: 1 + (number < PARTITIONS / 2) for number in range(PARTITIONS)}
        new = {"assignments": {number: [leader] for number, leader in leaders.items()}, "configs": CONFIG}
        client.create_topics({settings.topic: new}, wait_for_metadata=True)
    ensure_topic(settings, "test")
    keys = sorted({partition_of(b"order-%d" % number): f"order-{number}" for number in range(99)}.items())
    group = [message(key) for _, key in keys]

    with delivering(settings) as producer:
        if connected:
            assert all(isinstance(result, Published) for result in producer.deliver(group))
        with frozen(cluster.second_pid):
            began = time.monotonic()
            results = producer.deliver(group)
            took_s = time.monotonic() - began
        half = PARTITIONS // 2
        told = {type(result) for result in results[:half]}
        assert told == {Unacknowledged if connected else Unsent}
        assert all(isinstance(result, Published) for result in results[half:])
        assert took_s < settings.publish_attempt_timeout_s + 0.2
        until(lambda: all(isinstance(r, Published) for r in producer.deliver(group)), "it goes on", within_s=10)
    figures("one node of two hangs", connected=connected, took_s=took_s)
    if not connected:
        on_topic = _event_ids(settings)
        assert [on_topic.count(one.event_id) for one in group[:half]] == [1] * half


def test_sends_to_a_frozen_broker_take_no_cpu_and_leave_nothing_behind(broker: Broker, figures: Figures) -> None:
    settings = broker.settings(publish_attempt_timeout_s=0.5)
    ensure_topic(settings, "test")
    with delivering(settings) as producer:
        threads, descriptors = set(threading.enumerate()), psutil.Process().num_fds()
        assert isinstance(producer.deliver([message("order-1")])[0], Published)
        with frozen(broker.pid):
            began, cpu = time.monotonic(), time.process_time()
            # More than the sockets' buffers hold, so that some of it stays in the client.
            group = [message("order-1", padding=12_000_000)]
            assert isinstance(producer.deliver(group)[0], Unacknowledged)
            for _ in range(5):
                assert isinstance(producer.deliver(group)[0], Unsent)
            took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
        assert set(threading.enumerate()) == threads
        producer.drop()
        assert psutil.Process().num_fds() <= descriptors

    figures("6 sends to a frozen broker", took_s=took_s, cpu_share=cpu_s / took_s)
    assert took_s < 6 * settings.publish_attempt_timeout_s + 1
    assert cpu_s < took_s / 4


def _close_connections(producer: Producer) -> None:
    """End them as a broker would: what is read next is their end."""
    client = producer._client
    assert client is not None
    sockets = [connection.transport._sock for connection in client._manager._conns.values()]
    assert sockets
    for sock in sockets:
        sock.shutdown(socket.SHUT_RD)


@dataclass(frozen=True)
class Flight:
    """One event on its way: when it was handed over, when it was settled, where it is."""

    order_id: str
    began: float
    ended: float
    result: Result


class WatchedProducer(Producer):
    """The producer as it is, and a record of what was in flight when."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "test")
        self.flights: list[Flight] = []
        self.groups: list[int] = []

    def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
        began = time.monotonic()
        results = super().deliver(messages, timeout_s)
        ended = time.monotonic()
        self.groups.append(len(messages))
        self.flights += [Flight(m.order_id, began, ended, r) for m, r in zip(messages, results, strict=True)]
        return results


def test_two_events_of_one_order_are_never_in_flight_together(broker: Broker, figures: Figures) -> None:
    settings = broker.settings()
    ensure_topic(settings, "test")
    producer = WatchedProducer(settings)
    callers, each, orders = 24, 40, 4

    with publishing(settings, producer) as publisher, ThreadPoolExecutor(callers) as pool:

        def call(caller: int) -> list[tuple[Message, Outcome]]:
            mine = [message(f"order-{caller % orders}") for _ in range(each)]
            return [(one, publisher.publish(one)) for one in mine]

        told = list(pool.map(call, range(callers)))

    flights: dict[str, list[Flight]] = defaultdict(list)
    for flight in producer.flights:
        flights[flight.order_id].append(flight)
    assert sum(map(len, flights.values())) == callers * each
    for ones in flights.values():
        for before, after in itertools.pairwise(ones):
            assert isinstance(before.result, Published)
            assert isinstance(after.result, Published)
            assert before.ended <= after.began
            assert before.result.offset < after.result.offset
    history = {record.event_id: record.offset for record in read_topic(settings)}
    for mine in told:
        offsets = [outcome.offset for _, outcome in mine if isinstance(outcome, Published)]
        assert offsets == sorted(offsets) == [history[one.event_id] for one, _ in mine]
    figures("24 callers on 4 orders", groups=len(producer.groups), largest_group=max(producer.groups))
