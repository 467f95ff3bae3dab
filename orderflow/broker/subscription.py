"""Reading the topic: from the offsets in the store, never past a record unseen, never from Kafka's own offsets.

A subscription reads one log, and ends where that is in doubt (`orderflow.broker.fetching`): the next one begins at the
records that were applied last, and only their being there shows that it is the same log.

Three traps of kafka-python 3.0 shape this module. With an offset reset policy the client walks past a truncated log
with an INFO line, so there is none. A batch that cannot be read raises out of ``poll()``, does not say where, and the
next ``poll()`` spins for ever, so such a consumer is dropped at once and `orderflow.broker.probing` looks for it.
And Kafka's committed offsets say nothing about the store: they are sent for lag tools only, and never waited for.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from orderflow.broker.clients import milliseconds
from orderflow.broker.consuming import LEAST_WAIT_S, OUT_OF_RANGE, is_damage, new_consumer
from orderflow.broker.probing import verify_ends
from orderflow.errors import BrokerError, LogInDoubt, LogReplaced, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from orderflow.broker.fetching import End
    from orderflow.broker.topic import Topic
    from orderflow.records import Position, Record
    from orderflow.settings import Settings


#: How often Kafka is told the offsets, for lag tools.
COMMIT_EVERY_S = 1.0


class Subscription:
    """A member of the consumer group. `positions` is shared with the caller, who moves it after each commit.

    `seen` has the `ends()` of the subscription before, when that one came to doubt the log.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        positions: dict[int, Position],
        on_assigned: Callable[[Collection[int]], None] = lambda _: None,
        seen: Mapping[int, End] | None = None,
    ) -> None:
        self.positions = positions
        self._settings = settings
        self._topic = topic
        self._seen = {number: end for number, end in (seen or {}).items() if self._unproven(number, end)}
        #: The log time (ms) of the last record that the last poll gave, by partition.
        self.polled_up_to: dict[int, int] = {}
        self._timeout_ms = milliseconds(settings.poll_timeout_s)
        self._max_records = settings.poll_max_records
        self._unverified: set[int] = set()
        self._committed_at = 0.0
        self._heard_at = time.monotonic()
        self._consumer, self._fetcher = new_consumer(
            settings,
            topic,
            "order-consumer",
            group_id=settings.consumer_group,
            # A static member that was killed comes back at once instead of after the session's timeout.
            group_instance_id=f"{settings.consumer_group}-1",
            session_timeout_ms=milliseconds(settings.session_timeout_s),
            heartbeat_interval_ms=milliseconds(settings.session_timeout_s / 5),
            max_poll_records=self._max_records,
            # With each look at the metadata the topic's id is seen, also while nothing is fetched.
            metadata_max_age_ms=milliseconds(settings.log_check_s),
        )
        _wait_between_polls(self._consumer)
        self._listener = _SeekToStore(self._consumer, positions, self._unverified, on_assigned)
        self._consumer.subscribe([topic.name], listener=self._listener)

    def poll(self) -> list[Record]:
        """Wait for records, at most the poll timeout: those of one partition are in the sequence of offsets.

        Raises:
            Unreadable: a batch cannot be read.
            LogInDoubt: it may not be the same log any more; subscribe again, which finds out.
            LogReplaced: the log does not hold what was applied from it.
            BrokerError: Kafka refuses this consumer; wait, and subscribe again.

        """
        if self._seen:
            verify_ends(self._settings, self._topic, self._seen)
            self._seen = {}
        if self._listener.got_nothing:
            self._listener.got_nothing = False
            # Shared out while the topic was gone. A static member that comes back is given the same again, unless it
            # joins anew; then the partitions that there are by now are shared out.
            self._consumer._coordinator.request_rejoin()  # noqa: SLF001 (no method says it)
        try:
            polled = self._consumer.poll(timeout_ms=self._timeout_ms)
        except OUT_OF_RANGE as error:
            raise self._out_of_range(error) from error
        except Exception as error:
            if not is_damage(error):
                raise BrokerError(f"Kafka refuses this consumer: {error}") from error
            raise Unreadable(f"{type(error).__name__}: {error}", self._reached()) from error
        if (doubt := self._fetcher.doubt()) is not None:
            raise LogInDoubt(doubt)
        if polled:
            self._heard_at = time.monotonic()
        self.polled_up_to = {partition.partition: found[-1].logged_at for partition, found in polled.items()}
        records: list[Record] = []
        for partition, found in polled.items():
            records += self._verify(partition.partition, found) if partition.partition in self._unverified else found
        return records

    def _out_of_range(self, error: kafka_errors.KafkaError) -> LogInDoubt | LogReplaced:
        """Judge an offset that the log does not have: it is lost only when that of a record that was applied is."""
        anchors = self._unverified & self.positions.keys()
        if isinstance(error, kafka_errors.OffsetOutOfRangeError) and any(p.partition in anchors for p in error.args[0]):
            return LogReplaced(f"The log no longer holds the offsets that were applied: {error}")
        return LogInDoubt(str(error))

    def _verify(self, partition: int, records: list[Record]) -> list[Record]:
        """Compare the first record with the anchor, and drop it: it was applied before."""
        first = records[0]
        self._unverified.discard(partition)
        position = self.positions.get(partition)
        anchor = position.anchor if position else None
        if anchor is None:
            return records
        if (first.offset, first.checksum()) != (anchor.offset, anchor.checksum):
            raise LogReplaced(
                f"At offset {anchor.offset} of partition {partition} the topic {self._topic.name!r} does not hold the "
                f"record that was applied last; found offset {first.offset} with checksum {first.checksum():08x}, "
                f"expected {anchor.checksum:08x}"
            )
        return records[1:]

    def _reached(self) -> dict[int, int]:
        """Tell where each partition stands: the record that cannot be parsed is at one of these offsets."""
        stored = {partition: position.next_offset for partition, position in self.positions.items()}
        found = {p.partition: self._consumer.position(p, timeout_ms=0) for p in self._consumer.assignment()}
        return stored | {partition: offset for partition, offset in found.items() if offset is not None}

    def _unproven(self, number: int, end: End) -> bool:
        """Tell whether records in front of an end are vouched for by no anchor."""
        position = self.positions.get(number)
        return end.leader_epoch >= 0 and end.offset > (position.next_offset if position and position.anchor else 0)

    def ends(self) -> dict[int, End]:
        """Tell how far the partitions were seen to reach: their records up to there were acknowledged."""
        return self._seen or dict(self._fetcher.ends)

    def left(self) -> dict[int, int]:
        """Count the records behind those that were applied, by partition; as far as it is known where each ends."""
        ends = {p.partition: self._consumer.highwater(p) for p in self._consumer.assignment()}
        known = {number: end for number, end in ends.items() if end == 0 or (end and number in self.positions)}
        return {number: max(0, end - self.positions[number].next_offset) if end else 0 for number, end in known.items()}

    def quiet_s(self) -> float:
        """Tell how long no record has come: the topic is quiet, or Kafka is away."""
        return time.monotonic() - self._heard_at

    def tell_kafka(self) -> None:
        """Commit the offsets to Kafka, for lag tools; not waited for, and nothing reads them back."""
        if time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        self._committed_at = time.monotonic()
        offsets = {
            p: OffsetAndMetadata(self.positions[p.partition].next_offset, "", -1)
            for p in self._consumer.assignment()
            if p.partition in self.positions
        }
        with suppress(kafka_errors.KafkaError):  # Another member has fenced this one; `poll` tells it.
            self._consumer.commit_async(offsets, callback=lambda *_: None)

    def close(self) -> None:
        """Leave without waiting for Kafka. As a static member it keeps its place until the session's timeout."""
        self._consumer.close(autocommit=False, timeout_ms=1_000)


class _SeekToStore(ConsumerRebalanceListener):
    """Makes each assigned partition start where the store says. Runs on the client's thread: it may only seek."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        positions: Mapping[int, Position],
        unverified: set[int],
        on_assigned: Callable[[Collection[int]], None],
    ) -> None:
        self._consumer = consumer
        self._positions = positions
        self._unverified = unverified
        self._on_assigned = on_assigned
        self.got_nothing = False

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing to do: what was polled is applied or not, and the offsets are with it."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for partition in assigned:
            position = self._positions.get(partition.partition)
            if position is None:
                self._consumer.seek_to_beginning(partition)
            else:
                self._consumer.seek(partition, position.start)
            self._unverified.add(partition.partition)
        self.got_nothing = not assigned
        self._on_assigned([p.partition for p in assigned])


def _wait_between_polls(consumer: KafkaConsumer) -> None:
    """Keep a consumer from spinning while a heartbeat is unanswered.

    kafka-python waits for records until the next heartbeat is due; from the moment in which one is overdue that is no
    time at all, for seconds. Heartbeats have a coroutine of their own, so nothing needs the short wait.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (no option says it)
    due_in_s = coordinator.time_to_next_poll
    coordinator.time_to_next_poll = lambda: max(due_in_s(), LEAST_WAIT_S)
