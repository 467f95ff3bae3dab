"""The topic: created once, verified by everyone who needs it. And the dead-letter topic, which is only created."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.net.compat import KafkaNetClient
from kafka.partitioner.default import murmur2

from orderflow.broker.clients import milliseconds, shared_options
from orderflow.errors import BrokerError, TopicMisconfigured

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: Fixed for good: another number would move keys to other partitions, and an order's history lies on one.
PARTITIONS = 6

#: The topic keeps everything, so that the database can be rebuilt from it; the broker's clock stamps each record.
CONFIG = {
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
}


#: What the dead-letter topic takes: a record as large as the orders' topic takes, and what is told of it in headers.
DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024

DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Topic:
    """A topic as it was found: its name, Kafka's id of this very topic, and its number of partitions."""

    name: str
    topic_id: str
    partitions: int


@lru_cache(maxsize=8_192)
def partition_of(key: bytes) -> int:
    """Tell the partition of a key, as every Kafka producer's default does (murmur2)."""
    return int(murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def ensure_topic(settings: Settings, client_id: str) -> Topic:
    """Create the topic if it is not there, and verify it.

    Raises:
        BrokerError: Kafka does not answer; try again.
        TopicMisconfigured: the topic exists with settings that break a guarantee.

    """
    try:
        with Admin(settings, client_id) as admin:
            found = _find_or_create(admin, settings.topic, settings.kafka_replication_factor, CONFIG)
            _verify(admin, found, settings.bootstrap[0])
            _wait_for_leaders(admin, found)
            return found
    except kafka_errors.KafkaError as error:
        raise BrokerError(f"Kafka at {settings.kafka_bootstrap_servers} did not answer: {error}") from error


def ensure_dead_letter_topic(settings: Settings, client_id: str) -> Topic:
    """Create the dead-letter topic if it is not there. One that is there is taken as it is.

    Raises:
        BrokerError: Kafka does not answer, or does not let us; try again.

    """
    name = settings.dead_letter_topic_name
    try:
        with Admin(settings, client_id) as admin:
            config = dead_letter_config(settings.dead_letter_retention_days)
            found = _find_or_create(admin, name, settings.kafka_replication_factor, config)
            _wait_for_leaders(admin, found)
            return found
    except kafka_errors.KafkaError as error:
        raise BrokerError(f"The topic {name!r} cannot be made sure of: {error}") from error


def dead_letter_config(retention_days: int) -> dict[str, str]:
    """Give the settings of a dead-letter topic that is created."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_days * DAY_MS),
        "max.message.bytes": str(DEAD_LETTER_MAX_BYTES),
    }


class Admin:
    """An admin client that leaves nothing behind, also where its constructor fails.

    kafka-python's constructor starts a thread and waits for the cluster; when that fails, nobody closes the thread.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        timeout_ms = milliseconds(settings.kafka_request_timeout_s)
        self._options = shared_options(settings, client_id) | {
            "request_timeout_ms": timeout_ms,
            "bootstrap_timeout_ms": timeout_ms,
            "kafka_client": self._connect,
        }
        self._connections: list[Any] = []

    def _connect(self, **options: Any) -> Any:
        connection = KafkaNetClient(**options)
        self._connections.append(connection)
        return connection

    def __enter__(self) -> KafkaAdminClient:
        try:
            self._admin = KafkaAdminClient(**self._options)
        except BaseException:
            for connection in self._connections:
                connection.close()
            raise
        return self._admin

    def __exit__(self, *_: object) -> None:
        self._admin.close()


def describe(admin: KafkaAdminClient, name: str) -> Topic | None:
    """Give a topic as it is; None when there is none of that name."""
    (answer,) = admin.describe_topics([name])
    if answer["error_code"] == kafka_errors.UnknownTopicOrPartitionError.errno:
        return None
    if answer["error_code"]:
        raise kafka_errors.for_code(answer["error_code"])(f"topic {name!r}")
    return Topic(name, str(answer["topic_id"]), len(answer["partitions"]))


def _find_or_create(admin: KafkaAdminClient, name: str, replication_factor: int, config: dict[str, str]) -> Topic:
    found = describe(admin, name)
    if found is None:
        wanted = {"num_partitions": PARTITIONS, "replication_factor": replication_factor, "configs": config}
        with suppress(kafka_errors.TopicAlreadyExistsError):  # Another process was quicker.
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        found = describe(admin, name)
    if found is None:
        raise BrokerError(f"The topic {name!r} was created, but is not there yet.")
    return found


def _verify(admin: KafkaAdminClient, topic: Topic, bootstrap: str) -> None:
    if topic.partitions != PARTITIONS:
        raise TopicMisconfigured(
            f"The topic {topic.name!r} has {topic.partitions} partitions, and orderflow needs exactly {PARTITIONS}: "
            "with another number an order's history would be on two of them; use another topic (ORDERFLOW_TOPIC)"
        )
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
    configs = admin.describe_configs([resource], config_filter="all")["topic"][topic.name]
    for name, wanted in CONFIG.items():
        found = configs[name]["value"]
        if found != wanted:
            raise TopicMisconfigured(
                f"The topic {topic.name!r} has {name}={found}, and orderflow needs {name}={wanted}; set it with "
                f"`kafka-python admin -b {bootstrap} configs alter -r topic -n {topic.name} -c {name}={wanted}`"
            )


def _wait_for_leaders(admin: KafkaAdminClient, topic: Topic) -> None:
    """Ask the leaders until they lead: for a moment metadata name those of a new topic before they do."""
    partitions = (TopicPartition(topic.name, number) for number in range(topic.partitions))
    with suppress(kafka_errors.KafkaError):  # A partition without a leader is no reason to refuse the others.
        admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
