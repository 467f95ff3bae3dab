"""Waiting for Kafka and the topic, as the workers do: inside the process, longer each time, saying so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from orderflow.broker import Topic, ensure_topic
from orderflow.delays import growing_delays
from orderflow.errors import BrokerError, TopicMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.process import State, StopFlag
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)


def wait_for_topic(
    settings: Settings, program: str, stop: StopFlag, beat: Callable[[State, str | None], None]
) -> Topic | None:
    """Make sure of the topic; None when asked to stop before.

    Raises:
        TopicMisconfigured: the topic is not the one that orderflow is built on.

    """
    delays = growing_delays(settings)
    while not stop:
        beat("waiting", f"Kafka at {settings.kafka_bootstrap_servers}")
        try:
            return ensure_topic(settings, program)
        except TopicMisconfigured:
            raise
        except BrokerError as error:
            delay_s = next(delays)
            log.warning("kafka.wait_scheduled", delay_s=delay_s, error=str(error))
            stop.wait(delay_s)
    return None
