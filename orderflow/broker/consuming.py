"""The consumers of kafka-python as reading needs them, and what the errors of their ``poll()`` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from orderflow.broker.batches import read_with_our_reader
from orderflow.broker.clients import milliseconds, shared_options
from orderflow.broker.fetching import PinnedFetcher

if TYPE_CHECKING:
    from orderflow.broker.topic import Topic
    from orderflow.settings import Settings

#: How long a wait for records takes at least, when there are none.
LEAST_WAIT_S = 0.1

#: What is raised for an offset that the log does not have.
OUT_OF_RANGE = (
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.LogTruncationError,
)

#: What is raised for a batch that cannot be read, beside errors that are none of Kafka's.
DAMAGE = (kafka_errors.CorruptRecordError, kafka_errors.UnsupportedCodecError)


def is_damage(error: Exception) -> bool:
    """Tell what parsing a record raises from what the cluster answers."""
    return isinstance(error, DAMAGE) or not isinstance(error, kafka_errors.KafkaError)


def new_consumer(settings: Settings, topic: Topic, client_id: str, **more: Any) -> tuple[KafkaConsumer, PinnedFetcher]:
    """Make a consumer that can fetch nothing but this very topic."""
    options = shared_options(settings, client_id) | {
        "metrics_enabled": False,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "request_timeout_ms": milliseconds(max(settings.kafka_request_timeout_s, settings.session_timeout_s + 1)),
        "fetch_max_wait_ms": min(500, milliseconds(settings.poll_timeout_s)),
    }
    consumer = KafkaConsumer(**options | more)
    consumer._fetcher = fetcher = PinnedFetcher(consumer, topic)  # noqa: SLF001 (it has no setting for it)
    read_with_our_reader(consumer)
    return consumer, fetcher
