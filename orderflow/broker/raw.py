"""Records put on the topic exactly as they are, good or bad: for demos, load and tests. Services use the publisher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from orderflow.broker.clients import milliseconds, shared_options
from orderflow.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.settings import Settings


@dataclass(frozen=True, slots=True)
class RawRecord:
    """Any record. Without a partition its key decides, and without both it is a random one."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class RawProducer:
    """Sends what it is given to the topic of the settings. Thread-safe."""

    def __init__(self, settings: Settings, client_id: str = "raw") -> None:
        self._topic = settings.topic
        self._timeout_s = settings.publish_deadline_s
        timeout_ms = milliseconds(self._timeout_s)
        self._producer = KafkaProducer(
            **shared_options(settings, client_id),
            metrics_enabled=False,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,
            batch_size=256 * 1024,
            delivery_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            max_block_ms=timeout_ms,
            allow_auto_create_topics=False,
        )

    def send(self, records: Iterable[RawRecord]) -> list[tuple[int, int]]:
        """Send the records and wait for all; give each one's partition and offset.

        Raises:
            BrokerError: one of them was not acknowledged; nothing is known of the others.

        """
        try:
            futures = [self._producer.send(self._topic, r.value, r.key, list(r.headers), r.partition) for r in records]
            placed = [future.get(timeout=self._timeout_s) for future in futures]
        except kafka_errors.KafkaError as error:
            raise BrokerError(f"A record was not acknowledged: {error}") from error
        return [(one.partition, one.offset) for one in placed]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=1)
