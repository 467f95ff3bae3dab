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
from orderflow.broker.requests import Batch, gather, produce_request, settle
from orderflow.errors import Unacknowledged, Unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kafka.future import Future

    from orderflow.broker.messages import Message
    from orderflow.broker.requests import Result
    from orderflow.settings import Settings

#: What metadata say of a partition that has no leader just now.
NO_LEADER = -1

#: How long a wait for metadata or a connection may sleep before it looks again: some changes wake nobody.
LOOK_AGAIN_S = 0.05


class Producer:
    """One network client at a time, made when needed. Not thread-safe: one group is delivered at a time."""

    def __init__(self, settings: Settings, client_id: str = "cart-service") -> None:
        self._topic = settings.topic
        self._timeout_s = settings.publish_attempt_timeout_s
        self._timeout_ms = milliseconds(self._timeout_s)
        self._options = shared_options(settings, client_id) | {"request_timeout_ms": self._timeout_ms}
        self._client: KafkaNetClient | None = None

    def deliver(self, messages: Sequence[Message]) -> list[Result]:
        """Send the messages together and wait for all; one result for each, in their order.

        Takes at most the attempt's timeout. Never raises for Kafka.
        """
        until = time.monotonic() + self._timeout_s
        results: list[Result] = [Unsent("Kafka did not take what was to be sent before it.")] * len(messages)
        try:
            for batches in gather(messages):
                settled = self._settle(batches, until)
                for batch in settled:
                    for index, result in batch.results():
                        results[index] = result
                if any(isinstance(batch.result, (Unsent, Unacknowledged)) for batch in settled):
                    self.drop()  # A client that lost a request does not always recover.
                    break
        except BaseException:
            self.drop()
            raise
        return results

    def drop(self) -> None:
        """Close the connections; the next delivery makes others. What was not written yet will never be."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _settle(self, batches: list[Batch], until: float) -> list[Batch]:
        """Exchange the batches; what was refused for one bad record is sent again, record by record."""
        self._exchange(batches, until)
        settled = [batch for batch in batches if not batch.spoiled]
        for spoiled in (batch for batch in batches if batch.spoiled):
            for single in spoiled.one_by_one():
                self._exchange([single], until)
                settled.append(single)
        return settled

    def _exchange(self, batches: list[Batch], until: float) -> None:
        """Send each leader its batches in one request, and take note of the answers."""
        client = self._client or self._connect()
        client.poll(timeout_ms=0)  # Notices a connection that was closed meanwhile, before a request is lost to it.
        sent: list[tuple[list[Batch], Future]] = []
        for leader, ours in self._by_leader(client, batches, until):
            try:
                sent.append((ours, self._send(client, leader, ours, until)))
            except kafka_errors.KafkaError as error:
                for batch in ours:
                    batch.fail(error, appended=False)
        for ours, answer in sent:
            _take_note(client, ours, answer, until)

    def _connect(self) -> KafkaNetClient:
        """Make a client. It connects when it is polled."""
        self._client = client = KafkaNetClient(**self._options)
        client.cluster.config["allow_auto_create_topics"] = False  # It passes no option on to it.
        client.cluster.add_topic(self._topic)
        client.cluster.start_refresh_loop()
        return client

    def _by_leader(self, client: KafkaNetClient, batches: list[Batch], until: float) -> list[tuple[int, list[Batch]]]:
        """Tell the leaders of the batches. One without a leader is left unsent."""
        by_leader: dict[int, list[Batch]] = {}
        if _wait(client, lambda: client.cluster.partitions_for_topic(self._topic) is not None, until):
            for batch in batches:
                leader = client.cluster.leader_for_partition(TopicPartition(self._topic, batch.partition))
                if leader is None or leader == NO_LEADER:
                    batch.fail(kafka_errors.LeaderNotAvailableError(f"partition {batch.partition}"), appended=False)
                else:
                    by_leader.setdefault(leader, []).append(batch)
        # The connected ones first: a broker that is away holds up nobody else.
        return sorted(by_leader.items(), key=lambda leads: not client.is_ready(leads[0]))

    def _send(self, client: KafkaNetClient, leader: int, batches: list[Batch], until: float) -> Future:
        """Hand a request to the connection of a leader.

        Raises:
            KafkaError: it was not handed over, and never will be.

        """
        if not _wait(client, lambda: client.ready(leader), until):
            raise kafka_errors.KafkaTimeoutError(f"Kafka's node {leader} did not take a connection in time.")
        answer = client.send(leader, produce_request(self._topic, batches, self._timeout_ms))
        if answer.exception is not None:  # Nothing is written before the next poll.
            raise answer.exception
        return answer


def _wait(client: KafkaNetClient, condition: Callable[[], bool], until: float) -> bool:
    """Drive the client until the condition holds; False when it does not in time."""
    while not condition():
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        client.poll(timeout_ms=milliseconds(min(left_s, LOOK_AGAIN_S)))
    return True


def _take_note(client: KafkaNetClient, batches: list[Batch], answer: Future, until: float) -> None:
    """Wait for a leader's answer, and take note of it, or of why there is none."""
    client.poll(timeout_ms=milliseconds(max(0.0, until - time.monotonic())), future=answer)
    if answer.succeeded():
        settle(batches, answer.value)
        return
    why = str(answer.exception) if answer.is_done else "Kafka did not answer in time."
    for batch in batches:
        batch.result = Unacknowledged(why)
