"""Whether the topic is there and right: a thread that asks at the start, and again after each outage."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from orderflow.alerts import AlertBook, Cause
from orderflow.broker import ensure_topic
from orderflow.delays import growing_delays
from orderflow.errors import BrokerError, NotAccepted, TopicMisconfigured
from orderflow.publishing.breaker import State
from orderflow.wsgi.service import NotReady

if TYPE_CHECKING:
    from orderflow.publishing.publisher import Publisher
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)


class KafkaWatch:
    """Tells the publisher what it finds. Requests and probes read its state."""

    def __init__(self, settings: Settings, program: str, publisher: Publisher, alerts: AlertBook) -> None:
        self._settings = settings
        self._program = program
        self._publisher = publisher
        self._alerts = alerts
        self._asked = threading.Event()
        self._misconfigured: str | None = None

    def start(self) -> None:
        """Begin to watch."""
        self.ask()
        threading.Thread(target=self._run, name="kafka-watch", daemon=True).start()

    def ask(self) -> None:
        """Have the topic verified."""
        self._asked.set()

    def refusal(self) -> NotAccepted | None:
        """Say why nothing may be taken: on another number of partitions an order's history would be torn."""
        return None if self._misconfigured is None else NotAccepted(self._misconfigured)

    def check(self) -> tuple[bool, str]:
        """Say for ``/readyz`` how Kafka is."""
        if self._misconfigured is not None:
            raise NotReady(self._misconfigured)
        breaker = self._publisher.breaker
        if breaker.state is State.CLOSED:
            return True, "The breaker is closed: Kafka takes events."
        seconds = time.monotonic() - breaker.since
        return (
            False,
            f"The breaker is {breaker.state.words} for {seconds:.0f} s: events go to the outbox. {breaker.why}",
        )

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            began = time.monotonic()
            for delay_s in growing_delays(self._settings):
                problem = self._reach()
                if problem is None:
                    break
                if self._misconfigured is None and time.monotonic() - began > self._settings.publish_deadline_s:
                    self._publisher.unverified(problem)
                log.warning("kafka.wait_scheduled", delay_s=delay_s, error=problem)
                time.sleep(delay_s)

    def _reach(self) -> str | None:
        """Verify the topic; say what is in the way."""
        try:
            ensure_topic(self._settings, self._program)
        except TopicMisconfigured as error:
            self._misconfigured = str(error)
            self._alerts.open(Cause.TOPIC_MISCONFIGURED, str(error))
            return str(error)
        except BrokerError as error:
            return str(error)
        except Exception as error:  # It must go on: without it nothing is ever verified.
            log.exception("kafka.watch_failed")
            return f"Asking for the topic ended with an error that nobody foresaw: {error!r}"
        self._misconfigured = None
        self._alerts.resolve(Cause.TOPIC_MISCONFIGURED, "The topic was verified.")
        self._publisher.verified()
        return None
