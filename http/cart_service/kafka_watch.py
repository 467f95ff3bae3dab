"""Whether Kafka takes events: told by the publisher's outcomes, and by a thread that asks again after a failure."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from orderflow.broker import Outcome, Published, ensure_topic
from orderflow.errors import BrokerError, NotAccepted, Rejected, TopicMisconfigured
from orderflow.wsgi.service import NotReady

if TYPE_CHECKING:
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)


class KafkaWatch:
    """Makes sure of the topic at the start, and again after each failed publish. Requests and probes read its state."""

    def __init__(self, settings: Settings, program: str) -> None:
        self._settings = settings
        self._program = program
        self._asked = threading.Event()
        self.problem: str | None = "Kafka was not reached yet."
        self.misconfigured: str | None = None
        self._verified = False
        self._alerted = False

    def start(self) -> None:
        """Begin to watch."""
        self._asked.set()
        threading.Thread(target=self._run, name="kafka-watch", daemon=True).start()

    def refusal(self) -> NotAccepted | None:
        """Say why nothing may be published: on another number of partitions an order's history would be torn."""
        if self.misconfigured is not None:
            return NotAccepted(self.misconfigured)
        return None if self._verified else NotAccepted(f"The topic is not verified yet. {self.problem}")

    def tell(self, outcome: Outcome) -> None:
        """Take note of what came of a publish."""
        if isinstance(outcome, Published):
            self.problem, self._alerted = None, False
        elif not isinstance(outcome.error, (NotAccepted, Rejected)):  # these say nothing of Kafka
            self.problem = f"The last event was not acknowledged: {outcome.error}"
            if not self._alerted:
                self._alerted = True
                log.error("alert.opened", cause="kafka_unreachable", detail=self.problem)
            self._asked.set()

    def check(self) -> tuple[bool, str]:
        """Say for ``/readyz`` how Kafka is."""
        if self.misconfigured is not None:
            raise NotReady(self.misconfigured)
        return (True, "Kafka takes events.") if self.problem is None else (False, self.problem)

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            delay_s = self._settings.wait_first_delay_s
            while not self._reach(delay_s):
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, self._settings.wait_max_delay_s)
            time.sleep(self._settings.wait_first_delay_s)  # Asked again at once, it would only be in the way.

    def _reach(self, delay_s: float) -> bool:
        try:
            ensure_topic(self._settings, self._program)
        except TopicMisconfigured as error:
            if self.misconfigured is None:
                log.error("alert.opened", cause="TopicMisconfigured", detail=str(error))  # noqa: TRY400 (no bug)
            self.misconfigured = str(error)
            return False
        except BrokerError as error:
            self.problem = str(error)
            log.warning("kafka.wait_scheduled", delay_s=delay_s, error=str(error))
            return False
        self.problem = self.misconfigured = None
        self._verified = True
        return True
