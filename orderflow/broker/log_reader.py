"""Reading the log itself, partition by partition, from one offset to another: no group, no offsets of its own.

The traps of kafka-python that `orderflow.broker.subscription` names hold here, too. And one more: in an outage
``poll()`` gives nothing without a word, so the wait for the next record is bounded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Self

from kafka import TopicPartition
from kafka import errors as kafka_errors

from orderflow.broker.clients import milliseconds, reachable
from orderflow.broker.consuming import is_damage, new_consumer
from orderflow.broker.probing import locate_unreadable
from orderflow.broker.topic import Admin, Topic, describe
from orderflow.errors import BrokerError
from orderflow.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kafka import KafkaConsumer

    from orderflow.broker.fetching import PinnedFetcher
    from orderflow.records import Position, UnreadableRecord
    from orderflow.settings import Settings

#: Bytes of one partition that are fetched at a time, and records that are handed on at a time.
FETCH_BYTES = 4 * 1024 * 1024
RECORDS_AT_ONCE = 2_000

#: How long the client sleeps where it has nothing to ask for, as after each assignment. Its default is 100 ms.
RETRY_MS = 10

#: How many times the request timeout may pass without a record or a step forward.
PATIENCE = 4


class Span(NamedTuple):
    """The offsets that a partition holds: from ``begin`` to the one before ``end``."""

    begin: int
    end: int


def find_topic(settings: Settings, client_id: str) -> Topic | None:
    """Describe the topic of the settings; None when there is none. It is not made.

    Raises:
        BrokerError: Kafka does not answer.

    """
    try:
        with Admin(settings, client_id) as admin:
            return describe(admin, settings.topic)
    except kafka_errors.KafkaError as error:
        raise BrokerError(f"Kafka at {settings.kafka_bootstrap_servers} did not answer: {error}") from error


class LogReader:
    """Reads a topic that exists, and no other one of its name. Not thread-safe."""

    def __init__(self, settings: Settings, topic: Topic, client_id: str) -> None:
        self.topic = topic
        self._settings = settings
        self._client_id = client_id
        self._patience_s = PATIENCE * settings.kafka_request_timeout_s
        self._consumer, self._fetcher = self._new_consumer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def spans(self) -> dict[int, Span]:
        """Tell what each partition holds now.

        Raises:
            BrokerError: Kafka does not answer.

        """
        partitions = [TopicPartition(self.topic.name, number) for number in range(self.topic.partitions)]
        timeout_ms = milliseconds(self._patience_s)
        try:
            begins = self._consumer.beginning_offsets(partitions, timeout_ms)
            ends = self._consumer.end_offsets(partitions, timeout_ms)
        except kafka_errors.KafkaError as error:
            raise BrokerError(f"Kafka did not say what the topic {self.topic.name!r} holds: {error}") from error
        return {one.partition: Span(begins[one], ends[one]) for one in partitions}

    def read(self, number: int, begin: int, end: int) -> Iterator[Record | UnreadableRecord]:
        """Give what a partition holds from one offset to another, in sequence; what cannot be read as its place.

        Raises:
            BrokerError: Kafka gives nothing more, or refuses to be read.

        """
        partition = TopicPartition(self.topic.name, number)
        at, in_vain = begin, 0
        while at < end:
            began_at, damaged = at, False
            self._consumer.assign([partition])
            self._consumer.seek(partition, at)
            try:
                for record in self._polled(partition, at, end):
                    yield record
                    at = record.offset + 1
            except _Unreadable as damage:
                at, damaged = max(at, damage.reached), True
            except _Interrupted:
                pass
            else:
                return
            self._renew()  # A client that met such a batch spins for ever, and one in doubt fetches nothing more.
            found = locate_unreadable(self._settings, self.topic, {number: at}) if damaged else []
            for unreadable in found:
                if unreadable.offset < end:
                    yield unreadable
                at = unreadable.offset + 1
            in_vain = 0 if at > began_at else in_vain + 1
            if in_vain > PATIENCE:
                raise BrokerError(f"partition {number} of the topic {self.topic.name!r} cannot be read at offset {at}")

    def _polled(self, partition: TopicPartition, at: int, end: int) -> Iterator[Record]:
        heard_at = time.monotonic()
        while at < end:
            try:
                polled = self._consumer.poll(timeout_ms=milliseconds(self._settings.poll_timeout_s))
                reached = self._consumer.position(partition, timeout_ms=0) or at
            except Exception as error:
                if is_damage(error):
                    raise _Unreadable(self._consumer.position(partition, timeout_ms=0) or at) from error
                raise BrokerError(f"Kafka does not let partition {partition.partition} be read: {error}") from error
            for record in polled.get(partition, ()):
                if record.offset >= end:
                    return
                yield record
            if reached > at:
                at, heard_at = reached, time.monotonic()
            elif self._fetcher.doubt() is not None:
                raise _Interrupted
            elif time.monotonic() - heard_at > self._patience_s:
                raise BrokerError(self._silence(partition.partition, at, end))

    def _silence(self, number: int, at: int, end: int) -> str:
        where = f"partition {number} of the topic {self.topic.name!r} behind offset {at}, which should end at {end}"
        who = (
            "Kafka"
            if reachable(self._settings)
            else f"No broker takes connections, and Kafka at {self._settings.kafka_bootstrap_servers}"
        )
        return f"{who} gave nothing of {where} for {self._patience_s:g} s; see whether it runs, and try again"

    def _renew(self) -> None:
        self._close()
        self._consumer, self._fetcher = self._new_consumer()

    def _close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1_000)

    def _new_consumer(self) -> tuple[KafkaConsumer, PinnedFetcher]:
        return new_consumer(
            self._settings,
            self.topic,
            self._client_id,
            request_timeout_ms=milliseconds(self._settings.kafka_request_timeout_s),
            retry_backoff_ms=RETRY_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
            max_poll_records=RECORDS_AT_ONCE,
        )


def lacks(log: LogReader, number: int, span: Span, position: Position) -> bool:
    """Tell that a partition does not hold what was applied from it: it is shorter, or its last record is another one.

    Raises:
        BrokerError: Kafka does not let it be read.

    """
    if position.next_offset > span.end:
        return True
    anchor = position.anchor
    if anchor is None or anchor.offset < span.begin:
        return False
    found = next(log.read(number, anchor.offset, anchor.offset + 1), None)
    return found is None or (isinstance(found, Record) and found.checksum() != anchor.checksum)


class _Interrupted(Exception):
    """The connection was lost, with what was on its way."""


class _Unreadable(Exception):
    """A batch cannot be read; reading had come to an offset."""

    def __init__(self, reached: int) -> None:
        super().__init__(reached)
        self.reached = reached
