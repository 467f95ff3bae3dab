"""The Kafka producer: delivers a group, says of each message what is certain, and is dropped when one failed.

The idempotent producer of kafka-python 3.0 can wedge for good after a broker was frozen or killed with a request in
flight, so idempotence is off: order is kept by one request in flight, duplicates are removed by event id at the
consumer. See docs/adr/0002-producer-settings.md.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from orderflow.broker.clients import milliseconds, shared_options
from orderflow.broker.messages import Published
from orderflow.errors import Rejected, Unacknowledged, Unsent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.broker.messages import Message
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: Kafka says no, and would say it again: no retry mends these.
FINAL = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
)

#: The broker answers these before it appends anything, so the record is not on the topic.
NOT_APPENDED = (
    kafka_errors.NotLeaderForPartitionError,
    kafka_errors.LeaderNotAvailableError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.NotEnoughReplicasError,
    kafka_errors.FencedLeaderEpochError,
)

#: Added to the client's own timeout before we stop waiting for it.
MARGIN_S = 1.0

#: How long a dropped producer's thread may take to end. While it lives, nobody can say that nothing was sent.
JOIN_S = 0.5


Result = Published | Unsent | Unacknowledged | Rejected


class Producer:
    """One KafkaProducer at a time, built when needed. Not thread-safe: one group is delivered at a time."""

    def __init__(self, settings: Settings, client_id: str = "cart-service") -> None:
        self._topic = settings.topic
        self._timeout_s = settings.publish_attempt_timeout_s
        timeout_ms = milliseconds(self._timeout_s)
        self._options = shared_options(settings, client_id) | {
            "metrics_enabled": False,
            "acks": "all",
            "enable_idempotence": False,
            "max_in_flight_requests_per_connection": 1,
            "retries": 0,  # Retries are ours: backed off, counted and logged.
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": timeout_ms,
            "max_block_ms": timeout_ms,
            "allow_auto_create_topics": False,
            "kafka_client": self._connect,
        }
        self._producer: KafkaProducer | None = None
        self._connection: _WatchedClient | None = None

    def _connect(self, **options: Any) -> _WatchedClient:
        self._connection = _WatchedClient(**options)
        return self._connection

    def deliver(self, messages: Sequence[Message]) -> list[Result]:
        """Send the messages together and wait for all; one result for each, in their order.

        Takes at most the attempt's timeout and two margins. Never raises for Kafka.
        """
        until = time.monotonic() + self._timeout_s + MARGIN_S
        try:
            if self._producer is None:
                self._producer = KafkaProducer(**self._options)
            assert self._connection is not None  # noqa: S101 (the constructor has called _connect)
            self._connection.sent.clear()
            futures = self._send(self._producer, messages)
            errors = [_wait(future, until) for future in futures]
        except BaseException:
            self.drop()
            raise
        failed = any(error is not None and not isinstance(error, FINAL) for error in errors)
        # Before an answer the producer must not be able to send any more: then what it has sent is known.
        ended = self.drop() if failed else True
        return [self._result(future, error, ended=ended) for future, error in zip(futures, errors, strict=True)]

    def drop(self) -> bool:
        """Close the producer; the next delivery builds another. True when its thread has ended."""
        producer, self._producer = self._producer, None
        if producer is None:
            return True
        sender = producer._sender  # noqa: SLF001 (close() does not wait for it, nor end it when its flush raises)
        try:
            producer.close(timeout=0)
        except kafka_errors.KafkaError as error:  # flush() in close() raises for what is still in flight
            log.debug("publish.close_failed", error=str(error))
            sender.force_close()
        sender.join(JOIN_S)
        return not sender.is_alive()

    def _send(self, producer: KafkaProducer, messages: Sequence[Message]) -> list[Any]:
        """Hand the messages to the client: a future each, or the error."""
        assert self._connection is not None  # noqa: S101 (there is a producer)
        try:
            producer.partitions_for(self._topic)
        except kafka_errors.KafkaError as error:
            return [error] * len(messages)  # No metadata: each of the group would wait as long for the same.
        futures: list[Any] = []
        with self._connection.one_wakeup():
            for message in messages:
                try:
                    futures.append(
                        producer.send(self._topic, key=message.key, value=message.value, headers=list(message.headers))
                    )
                except kafka_errors.KafkaTimeoutError as error:  # The same again: the metadata went away meanwhile.
                    return futures + [error] * (len(messages) - len(futures))
                except kafka_errors.KafkaError as error:
                    futures.append(error)
        return futures

    def _result(self, future: Any, error: kafka_errors.KafkaError | None, *, ended: bool) -> Result:
        if error is None:
            return Published(future.value.partition, future.value.offset)
        if isinstance(error, FINAL):
            return Rejected(str(error))
        if isinstance(error, NOT_APPENDED):
            return Unsent(str(error))
        return Unacknowledged(str(error)) if self._may_be_sent(future, ended=ended) else Unsent(str(error))

    def _may_be_sent(self, future: Any, *, ended: bool) -> bool:
        if isinstance(future, kafka_errors.KafkaError) or self._connection is None:
            return False  # The client did not even take it.
        partition = future._produce_future.topic_partition.partition  # noqa: SLF001 (a failed future has no other way)
        return not ended or partition in self._connection.sent


def _wait(future: Any, until: float) -> kafka_errors.KafkaError | None:
    """Wait for a record's acknowledgement; give the error when there is none."""
    if isinstance(future, kafka_errors.KafkaError):
        return future
    try:
        future.get(timeout=max(0.0, until - time.monotonic()))
    except kafka_errors.KafkaError as error:
        return error
    return None


class _WatchedClient(KafkaNetClient):
    """A network client that remembers the partitions it was given records for: what makes "not sent" certain.

    And one that lets a group be handed over as a whole: woken by the group's first record, the client's thread would
    send that one alone, and the others only after its acknowledgement.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent: set[int] = set()
        self._held = False

    @contextmanager
    def one_wakeup(self) -> Iterator[None]:
        """Wake the client's thread at the end, instead of at each new batch."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.wakeup()

    def wakeup(self) -> None:
        """Wake the client's thread, unless a group is being handed over."""
        if not self._held:
            super().wakeup()

    def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send as the client does."""
        for topic in getattr(request, "topic_data", None) or ():
            self.sent.update(partition.index for partition in topic.partition_data)
        return super().send(node_id, request, **options)
