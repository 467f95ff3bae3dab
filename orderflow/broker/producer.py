"""The Kafka producer: sends a group, says of each message what is certain, and begins anew when one failed.

kafka-python's `KafkaProducer` hands every record to a thread of its own, and the answer back; among the threads of a
service that takes longer than the sending. Here the calling thread drives kafka-python's network client itself: one
request to each leader, then their answers. Nothing runs between two deliveries, so nothing is sent behind a caller's
back. See docs/adr/0009-own-produce-requests.md.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from orderflow.broker.clients import milliseconds, shared_options
from orderflow.broker.requests import gather, produce_request, settle
from orderflow.errors import Unacknowledged, Unsent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kafka.future import Future

    from orderflow.broker.requests import Batch, Result
    from orderflow.messages import Message
    from orderflow.settings import Settings

#: What metadata say of a partition that has no leader just now.
NO_LEADER = -1

#: How long a wait may sleep before it looks again: the end of a pause between two connects wakes nobody.
LOOK_AGAIN_S = 0.05


class Producer:
    """One network client at a time, made when needed. Not thread-safe: one group is delivered at a time.

    It writes to one topic, by default the orders'.
    """

    def __init__(self, settings: Settings, client_id: str = "cart-service", topic: str | None = None) -> None:
        self._topic = topic or settings.topic
        self._bootstrap = settings.kafka_bootstrap_servers
        self._timeout_s = settings.publish_attempt_timeout_s
        self._timeout_ms = milliseconds(self._timeout_s)
        self._options = shared_options(settings, client_id) | {"request_timeout_ms": self._timeout_ms}
        self._client: KafkaNetClient | None = None

    def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
        """Send the messages together and wait for all; one result for each, in their order.

        Takes at most ``timeout_s``, by default that of an attempt, and what the system takes to resolve the name of a
        broker that is given by its name. Never raises for Kafka.
        """
        until = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        results: list[Result] = [Unsent("Kafka did not take what was to be sent before it.")] * len(messages)
        try:
            for batches in gather(messages):
                settled = list(self._settle(batches, until))
                for batch in settled:
                    for index, result in batch.results():
                        results[index] = result
                if any(batch.failed or batch.forbidden for batch in settled):
                    self.drop()  # A client that lost a request does not always recover.
                    break
        except BaseException:
            self.drop()
            raise
        return results

    def drop(self) -> None:
        """Close the connections; the next delivery makes others. What was not written yet will never be."""
        client, self._client = self._client, None
        if client is None:
            return
        # Closed in good order, a connection first writes what it still has.
        for connection in list(client._manager._conns.values()):  # noqa: SLF001 (the client has no other way)
            connection.close(kafka_errors.KafkaConnectionError("dropped"))
        client.close()

    def _settle(self, batches: list[Batch], until: float) -> Iterator[Batch]:
        """Exchange the batches; one that was refused, perhaps for one bad record, is sent again record by record."""
        self._exchange(batches, until)
        for batch in batches:
            if batch.spoiled:
                yield from self._settle_one_by_one(batch, until)
            else:
                yield batch

    def _settle_one_by_one(self, spoiled: Batch, until: float) -> Iterator[Batch]:
        for batch in spoiled.one_by_one():
            self._exchange([batch], until)
            yield batch
            if batch.failed:
                break  # The others stay unsent: none may overtake it.

    def _exchange(self, batches: list[Batch], until: float) -> None:
        """Send each leader its batches in one request, and take note of the answers."""
        client = self._client or self._connect()
        client.poll(timeout_ms=0)  # Notices a connection that was closed meanwhile, before a request is lost to it.
        try:
            self._wait_for_topic(client, until)
        except kafka_errors.KafkaError as error:
            _fail(batches, error)
            return
        waiting = self._by_leader(client, batches)
        answers: list[tuple[list[Batch], Future]] = []
        # Whoever is ready is sent to: a leader that is away holds up no other.
        while waiting and time.monotonic() < until:
            for leader, ours in list(waiting.items()):
                try:
                    if not client.ready(leader):  # It begins to connect.
                        continue
                    answers.append((ours, self._send(client, leader, ours)))
                except kafka_errors.KafkaError as error:
                    _fail(ours, error)
                del waiting[leader]
            if waiting:
                _poll(client, until)
        for ours, answer in answers:
            _take_note(client, ours, answer, until)

    def _connect(self) -> KafkaNetClient:
        """Make a client. It connects when it is polled."""
        self._client = client = KafkaNetClient(**self._options)
        client.cluster.config["allow_auto_create_topics"] = False  # It passes no option on to it.
        client.cluster.add_topic(self._topic)
        return client

    def _wait_for_topic(self, client: KafkaNetClient, until: float) -> None:
        """Drive the client until Kafka has told of the topic.

        Raises:
            KafkaError: it did not, or does not let us write to it.

        """
        cluster = client.cluster
        while cluster.partitions_for_topic(self._topic) is None:
            if self._topic in cluster.unauthorized_topics:
                raise kafka_errors.TopicAuthorizationFailedError(self._topic)
            if time.monotonic() >= until:
                what = f"knows of no topic {self._topic!r}" if cluster.brokers() else "was not reached in time"
                raise kafka_errors.KafkaTimeoutError(f"Kafka at {self._bootstrap} {what}.")
            _poll(client, until)

    def _by_leader(self, client: KafkaNetClient, batches: list[Batch]) -> dict[int, list[Batch]]:
        """Tell the leaders of the batches. One without a leader is left unsent."""
        by_leader: dict[int, list[Batch]] = {}
        for batch in batches:
            leader = client.cluster.leader_for_partition(TopicPartition(self._topic, batch.partition))
            if leader is None or leader == NO_LEADER:
                batch.result = Unsent(f"Partition {batch.partition} of the topic {self._topic!r} has no leader.")
            else:
                by_leader.setdefault(leader, []).append(batch)
        return by_leader

    def _send(self, client: KafkaNetClient, leader: int, batches: list[Batch]) -> Future:
        """Hand a request to the connection of a leader.

        Raises:
            KafkaError: it was not handed over, and never will be.

        """
        answer = client.send(leader, produce_request(self._topic, batches, self._timeout_ms))
        if answer.exception is not None:  # Nothing is written before the next poll.
            raise answer.exception
        return answer


def _fail(batches: list[Batch], error: kafka_errors.KafkaError) -> None:
    """Take note of an error that came before anything was handed over."""
    for batch in batches:
        batch.fail(error, appended=False)


def _left_s(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _poll(client: KafkaNetClient, until: float) -> None:
    """Drive the client until something happens, for a moment at most."""
    client.poll(timeout_ms=milliseconds(min(_left_s(until), LOOK_AGAIN_S)))


def _take_note(client: KafkaNetClient, batches: list[Batch], answer: Future, until: float) -> None:
    """Wait for a leader's answer, and take note of it, or of why there is none."""
    client.poll(timeout_ms=milliseconds(_left_s(until)), future=answer)
    if answer.succeeded():
        settle(batches, answer.value)
        return
    why = str(answer.exception) if answer.is_done else "Kafka did not answer in time."
    for batch in batches:
        batch.result = Unacknowledged(why)
