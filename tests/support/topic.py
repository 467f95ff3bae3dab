"""The topic as any consumer of Kafka sees it, read by kafka-python alone and decoded by the standard library."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: (partition, offset): where a record is.
Place = tuple[int, int]

READ_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class TopicRecord:
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @cached_property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.value or b"")
        return event

    @property
    def event_id(self) -> str:
        return str(self.event["event_id"])

    @property
    def order_id(self) -> str:
        return str(self.event["order_id"])

    @property
    def creates(self) -> bool:
        return bool(self.event["type"] == "order.created")


class TopicReader:
    """A consumer without a group. Not thread-safe."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id="test-reader",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            reconnect_backoff_max_ms=200,
            metrics_enabled=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> TopicReader:
        return cls(settings.kafka_bootstrap_servers, settings.topic)

    def close(self) -> None:
        self._consumer.close()

    def ends(self) -> dict[int, int]:
        """The end of the log of each partition that has records."""
        partitions = self._consumer.partitions_for_topic(self._topic) or ()
        ends = self._consumer.end_offsets([TopicPartition(self._topic, number) for number in partitions])
        return {partition.partition: end for partition, end in ends.items() if end}

    def read_all(self) -> list[TopicRecord]:
        """All records up to the present end: those of one partition in the sequence of offsets."""
        ends = {TopicPartition(self._topic, number): end for number, end in self.ends().items()}
        self._consumer.assign(list(ends))
        self._consumer.seek_to_beginning()
        records: list[TopicRecord] = []
        deadline = time.monotonic() + READ_TIMEOUT_S
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"the topic {self._topic} was not read within {READ_TIMEOUT_S:g} s"
            for polled in self._consumer.poll(timeout_ms=200).values():
                records += [TopicRecord(r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in polled]
        return records


def read_topic(settings: Settings) -> list[TopicRecord]:
    with closing(TopicReader.of(settings)) as reader:
        return reader.read_all()
