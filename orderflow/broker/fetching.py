"""Fetching one topic by its id, and each partition over one connection for as long as nothing casts doubt on the log.

kafka-python 3.0 fetches by the topic's name, and after a lost connection goes on over a new one without a word. So it
takes records of a topic that was made anew, or of another cluster behind the same address, for those that come next.
`PinnedFetcher` names the topic's id in every fetch, so a broker that has another topic of that name refuses. And it
drops what comes over another connection than before: a log can only be cut or put back while its broker is down, so
whoever reads must look first whether it is still the same. See docs/adr/0014-noticing-a-lost-log.md.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kafka import KafkaConsumer

    from orderflow.broker.topic import Topic

#: The version of a fetch request that names topics by their ids. Brokers have it since 3.1.
BY_ID = 13

#: What a broker answers for a topic or a partition that it does not have.
GONE = frozenset(
    {
        kafka_errors.UnknownTopicIdError.errno,
        kafka_errors.InconsistentTopicIdError.errno,
        kafka_errors.UnknownTopicOrPartitionError.errno,
    }
)


#: So many looks at the metadata may pass without the topic: a client that has just begun has not asked for it yet.
LOOKS_MAX = 3


class End(NamedTuple):
    """Where a partition ended when it was fetched, and in which epoch of its leader that was (-1: unknown)."""

    offset: int
    leader_epoch: int


class _Asked(NamedTuple):
    """A fetch that is on its way: the connection it took, and the leaders' epochs by partition."""

    connection: object
    leader_epochs: dict[int, int]


class PinnedFetcher(Fetcher):
    """Takes the place of a consumer's fetcher. Its methods run on the client's thread; ``doubt()`` on any."""

    def __init__(self, consumer: KafkaConsumer, topic: Topic) -> None:
        super().__init__(consumer._client, consumer._subscription, **consumer.config)  # noqa: SLF001 (as it makes its own)
        self._topic = topic
        self._topic_id = uuid.UUID(topic.topic_id)
        self._asked: dict[Any, _Asked] = {}
        self._pinned: dict[int, object] = {}
        self._doubt: str | None = None
        self._patience_s = LOOKS_MAX * self.config["metadata_max_age_ms"] / 1000
        self._heard_of_at = time.monotonic()
        self.ends: dict[int, End] = {}

    def doubt(self) -> str | None:
        """Say why the log may not be the one that was read so far; None while nothing speaks for it."""
        found = self._manager.cluster._topic_ids.get(self._topic.name)  # noqa: SLF001 (no method says it)
        if found is not None:
            self._heard_of_at = time.monotonic()
        if self._doubt is None and found not in (None, self._topic_id):
            self._doubt = f"the topic {self._topic.name!r} has another id"
        if self._doubt is None and time.monotonic() - self._heard_of_at > self._patience_s:
            self._doubt = f"the cluster does not know of the topic {self._topic.name!r}"
        return self._doubt

    def _create_fetch_requests(self) -> dict[Any, tuple[Any, Mapping[TopicPartition, int]]]:
        if self._doubt is not None:  # What comes is dropped: asking again would spin.
            return {}
        requests: dict[Any, tuple[Any, Mapping[TopicPartition, int]]] = super()._create_fetch_requests()
        for node_id, (request, offsets) in requests.items():
            request._min_version = request._max_version = BY_ID  # noqa: SLF001 (the base class allows up to 12)
            for topic in (*request.topics, *request.forgotten_topics_data):
                topic.topic_id = self._topic_id
            epochs = {p.partition: self._manager.cluster.leader_epoch_for_partition(p) for p in offsets}
            self._asked[node_id] = _Asked(
                self._manager.get_connection(node_id),
                {number: -1 if epoch is None else epoch for number, epoch in epochs.items()},
            )
        return requests

    def _handle_fetch_response(self, node_id: Any, offsets: Any, sent_at: float, response: Any) -> None:
        asked = self._asked[node_id]
        partitions = [partition for topic in response.responses for partition in topic.partitions]
        for partition in partitions:
            self._doubt = self._doubt or self._doubt_of(partition, asked)
        if self._doubt is not None:
            return
        for topic in response.responses:
            topic.topic = self._topic.name  # The base class goes by names.
        for partition in partitions:
            if not partition.error_code and not _diverges(partition):
                number = partition.partition_index
                self.ends[number] = End(partition.high_watermark, asked.leader_epochs[number])
        super()._handle_fetch_response(node_id, offsets, sent_at, response)

    def _doubt_of(self, partition: Any, asked: _Asked) -> str | None:
        """Say what is wrong with the answer for one partition."""
        number = partition.partition_index
        if partition.error_code in GONE:
            name = kafka_errors.for_code(partition.error_code).message
            return f"partition {number} of the topic {self._topic.name!r} is not there: {name}"
        if self._pinned.setdefault(number, asked.connection) is not asked.connection:
            return f"partition {number} is read over another connection than before"
        return None


def _diverges(partition: Any) -> bool:
    """Tell whether the broker says that the epoch of the offset that was asked for ends before it."""
    return partition.diverging_epoch is not None and partition.diverging_epoch.end_offset >= 0
