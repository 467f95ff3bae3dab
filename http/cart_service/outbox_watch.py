"""The outbox, as the cart service sees it: a thread that notices what the relay has delivered, and raises alerts.

It keeps the set of orders that wait up to date, closes the breaker when the relay's deliveries show that Kafka is back
though no request has probed it, and opens and resolves the alerts of an outage.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from orderflow.alerts import AlertBook, Cause
from orderflow.errors import OutboxFull, StoreError, StoreIncompatible
from orderflow.publishing.breaker import State
from orderflow.store.outbox import Outbox
from orderflow.wsgi.service import NotReady

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cart_service.kafka_watch import KafkaWatch
    from orderflow.publishing.publisher import Publisher
    from orderflow.publishing.spool import Spool
    from orderflow.settings import Settings
    from orderflow.store.outbox_rows import Totals

log = structlog.get_logger(__name__)

#: The outbox is nearly full at this share of its bound, and is not any more at that one.
NEARLY_FULL = 0.8
WELL_AGAIN = 0.6


class OutboxWatch:
    """One thread; its last look is what probes and metrics tell."""

    def __init__(
        self, settings: Settings, publisher: Publisher, spool: Spool, kafka: KafkaWatch, alerts: AlertBook
    ) -> None:
        self.outbox = Outbox(settings)
        self._settings = settings
        self._publisher = publisher
        self._spool = spool
        self._kafka = kafka
        self._alerts = alerts
        self._totals: Totals | None = None
        self._failures = 0
        self._counted = 0

    def start(self) -> None:
        """Look once, so that requests are taken from the first one on, and go on looking."""
        self.look()
        threading.Thread(target=self._run, name="outbox-watch", daemon=True).start()

    def check(self) -> tuple[bool, str]:
        """Say for ``/readyz`` whether events can be spooled; not ready while they can neither be that nor published."""
        problem = self._spool.problem or self._spool.last_error
        if problem:
            if self._spool.problem or not self._publisher.breaker.closed:
                raise NotReady(f"The outbox takes no events. {problem}")
            return False, f"The outbox takes no events. {problem}"
        waiting, held = (self._totals.waiting, self._totals.held) if self._totals else (0, 0)
        return held == 0, f"The outbox takes events; {waiting} wait in it, {held} are held."

    def events(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how many events are in each state."""
        totals = self._totals
        return {} if totals is None else {("waiting",): totals.waiting, ("held",): totals.held}

    def undelivered_bytes(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how much they take."""
        return {} if self._totals is None else {(): self._totals.bytes_undelivered}

    def breaker(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` in which state the breaker is: 1 for that one."""
        return {(state.value,): float(state is self._publisher.breaker.state) for state in State}

    def _run(self) -> None:
        while True:
            time.sleep(self._settings.outbox_watch_s)
            try:
                self.look()
            except Exception:
                log.exception("outbox.watch_failed")

    def look(self) -> None:
        """Look once."""
        breaker = self._publisher.breaker
        open_before = breaker.state is State.OPEN
        try:
            totals = self._read()
        except StoreIncompatible as error:
            self._alerts.open(Cause.STORE_INCOMPATIBLE, str(error))
            return
        except StoreError as error:
            self._alerts.open(Cause.OUTBOX_UNWRITABLE, str(error))
            return
        before, self._totals = self._totals, totals
        if open_before and before is not None and totals.delivered_ever > before.delivered_ever:
            self._publisher.recovered()
        self._alert_of_outage(totals)
        self._alert_of_fullness(totals)
        self._alert_of_errors(totals)

    def _read(self) -> Totals:
        if self._spool.problem is not None or not self._spool.empty:
            self._spool.refresh()
        return self.outbox.totals()

    # Alerts.

    def _alert_of_outage(self, totals: Totals) -> None:
        breaker = self._publisher.breaker
        stored = self._spool.stored
        if breaker.failures > self._failures:
            self._alerts.open(Cause.KAFKA_UNREACHABLE, breaker.why, stored - self._counted)
            self._kafka.ask()
        elif self._failures and stored > self._counted:
            self._alerts.add(Cause.KAFKA_UNREACHABLE, stored - self._counted)
        else:
            stored = self._counted  # What is spooled before a first failure is counted when it is told.
        self._failures, self._counted = breaker.failures, stored
        if breaker.closed and totals.waiting <= (self.outbox.undeliverable() if totals.held else 0):
            self._alerts.resolve(Cause.KAFKA_UNREACHABLE, "Kafka takes events, and the outbox is drained.")

    def _alert_of_fullness(self, totals: Totals) -> None:
        fullness = self._fullness(totals)
        if fullness >= NEARLY_FULL:
            detail = f"The outbox is {fullness:.0%} full: {totals.undelivered} events wait in it."
            self._alerts.open(Cause.OUTBOX_NEARLY_FULL, detail)
        elif fullness <= WELL_AGAIN:
            self._alerts.resolve(Cause.OUTBOX_NEARLY_FULL, f"The outbox is {fullness:.0%} full.")

    def _alert_of_errors(self, totals: Totals) -> None:
        """Find out whether what kept the last events out of the outbox has passed."""
        error = self._spool.last_error
        if isinstance(error, OutboxFull):
            if self._fullness(totals) < NEARLY_FULL:
                self._spool.last_error = None
        elif error is not None:
            self._alerts.open(Cause.OUTBOX_UNWRITABLE, str(error))
            try:
                self.outbox.try_to_write()
            except StoreError:
                return
            self._spool.last_error = None
        else:
            self._alerts.resolve(Cause.OUTBOX_UNWRITABLE, "The outbox can be written.")

    def _fullness(self, totals: Totals) -> float:
        """Tell the share of the bound that is taken, by events or by bytes."""
        size_max = self._settings.outbox_max_mb * 1024 * 1024
        return max(totals.undelivered / self._settings.outbox_max_events, totals.bytes_undelivered / size_max)
