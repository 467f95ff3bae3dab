"""Handing a group to the client: it is woken once, and a client that has no metadata is waited for once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from orderflow.broker import Message
from orderflow.broker.producer import Producer, _WatchedClient
from orderflow.settings import Settings


class Client:
    """Stands for KafkaProducer: wakes its thread at every record, as for new batches, and can lose its metadata."""

    def __init__(self, connection: _WatchedClient, *, fails_from: int = 99) -> None:
        self.sends = 0
        self._connection = connection
        self._fails_from = fails_from

    def partitions_for(self, _: str) -> set[int]:
        return {0}

    def send(self, *_: Any, **__: Any) -> object:
        self.sends += 1
        if self.sends > self._fails_from:
            raise KafkaTimeoutError("no metadata")
        self._connection.wakeup()
        return object()


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def connection(woken: list[int]) -> _WatchedClient:
    net = SimpleNamespace(wakeup=lambda: woken.append(1))
    return _WatchedClient(net=net, manager=SimpleNamespace())


def handed_over(connection: _WatchedClient, client: Any, count: int) -> list[Any]:
    producer = Producer(Settings())
    producer._connection = connection
    return producer._send(client, [Message(b"k%d" % n, b"v", (), "k", "e") for n in range(count)])


def test_a_group_wakes_the_clients_thread_once(connection: _WatchedClient, woken: list[int]) -> None:
    """When it is complete: the first record alone would go out by itself."""
    futures = handed_over(connection, Client(connection), 5)

    assert len(futures) == 5
    assert woken == [1]
    connection.wakeup()
    assert woken == [1, 1], "outside of a group every call wakes"


def test_lost_metadata_is_waited_for_once(connection: _WatchedClient, woken: list[int]) -> None:
    """Each send would wait as long for the same; what was taken before goes out."""
    client = Client(connection, fails_from=2)

    results = handed_over(connection, client, 10)

    assert client.sends == 3
    assert [isinstance(result, KafkaTimeoutError) for result in results] == [False] * 2 + [True] * 8
    assert woken == [1]


def test_a_topic_without_metadata_fails_the_whole_group(connection: _WatchedClient, woken: list[int]) -> None:
    """After one wait, with nothing handed over."""
    client = Client(connection)

    def fail(_: str) -> set[int]:
        raise KafkaTimeoutError("no metadata")

    client.partitions_for = fail  # type: ignore[method-assign]
    results = handed_over(connection, client, 3)

    assert [type(result) for result in results] == [KafkaTimeoutError] * 3
    assert (client.sends, woken) == (0, [])
