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
from orderflow.clock import now_ms
from orderflow.errors import OutboxFull, StoreError
from orderflow.publishing.breaker import State
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
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

#: How often it is looked while somebody pauses until an order is free.
PAUSING_LOOK_S = 0.05

#: So many looks in a row that fail are an alert, and nobody knows the figures any more: another process may hold the
#: lock for a moment.
IN_VAIN_MAX = 3

#: After asking which orders wait, so many times as long as that took goes by before it is asked again.
REFRESH_SHARE = 10


class OutboxWatch:
    """One thread; its last look is what probes and metrics tell."""

    def __init__(
        self, settings: Settings, publisher: Publisher, spool: Spool, kafka: KafkaWatch, alerts: AlertBook
    ) -> None:
        self.outbox = Outbox(settings)
        self._desk = OutboxDesk(settings)
        self._settings = settings
        self._publisher = publisher
        self._spool = spool
        self._kafka = kafka
        self._alerts = alerts
        self._totals: Totals | None = None
        #: Since when the oldest of each state waits, in ms since 1970, where there is one.
        self._oldest_at: Mapping[str, int] = {}
        self._settled: tuple[int, int] | None = None
        self._next_refresh = 0.0
        self._delivered_ever: int | None = None
        self._delivered_at = -settings.outbox_pause_s
        self._in_vain = 0
        self._openings = 0
        self._counted = 0
        #: The last event that was spooled while the breaker was open; None while it is.
        self._last_of_outage: int | None = None

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
        totals = self._totals
        if totals is None:
            return False, "The outbox cannot be read: how many events wait in it is not known."
        return totals.held == 0, f"The outbox takes events; {totals.waiting} wait in it, {totals.held} are held."

    def events(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how many events are in each state."""
        totals = self._totals
        return {} if totals is None else {("waiting",): totals.waiting, ("held",): totals.held}

    def undelivered_bytes(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how much they take."""
        return {} if self._totals is None else {(): self._totals.bytes_undelivered}

    def oldest_age_s(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how long the oldest of each state waits; 0 where none does."""
        if self._totals is None:
            return {}
        now, since = now_ms(), self._oldest_at
        return {(state,): max(0, now - since.get(state, now)) / 1000 for state in ("waiting", "held")}

    def retries(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how often events were sent again."""
        return {(): self._publisher.retries}

    def breaker(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` in which state the breaker is: 1 for that one."""
        return {(state.value,): float(state is self._publisher.breaker.state) for state in State}

    def _run(self) -> None:
        while True:
            time.sleep(PAUSING_LOOK_S if self._publisher.pausing else self._settings.outbox_watch_s)
            try:
                self.look()
            except Exception:
                log.exception("outbox.watch_failed")

    def look(self) -> None:
        """Look once."""
        was_open = self._publisher.breaker.state is State.OPEN
        try:
            totals = self.outbox.totals()
            self._oldest_at = self._desk.oldest_of_each() if totals.undelivered else {}
            self._refresh(totals)
            self._notice_deliveries(totals, was_open=was_open)
            self._alert_of_outage()
            self._alert_of_fullness(totals)
            self._alert_of_errors(totals)
            self._in_vain = 0
        except StoreError as error:
            self._in_vain += 1
            if self._in_vain >= IN_VAIN_MAX:
                self._totals = None  # Nobody knows how much waits now, and that is not what waited then.
                self._alerts.open(Cause.OUTBOX_UNWRITABLE, str(error))

    def _refresh(self, totals: Totals) -> None:
        """Ask which orders wait, when some may not wait any more; the longer that takes the more seldom."""
        spool = self._spool
        settled = (totals.delivered_ever, totals.discarded)
        stale = spool.problem is not None or spool.unsure or (settled != self._settled and not spool.empty)
        now = time.monotonic()
        if stale and now >= self._next_refresh:
            spool.refresh(self.outbox)
            self._settled = settled
            self._next_refresh = now + REFRESH_SHARE * (time.monotonic() - now)
        self._publisher.go_on()

    def _notice_deliveries(self, totals: Totals, *, was_open: bool) -> None:
        before, self._totals, self._delivered_ever = self._delivered_ever, totals, totals.delivered_ever
        now = time.monotonic()
        if before is not None and totals.delivered_ever > before:
            self._delivered_at = now
            if was_open:
                self._publisher.recovered()
        self._publisher.draining = now - self._delivered_at < self._settings.outbox_pause_s

    # Alerts.

    def _alert_of_outage(self) -> None:
        breaker = self._publisher.breaker
        openings, stored = breaker.openings, self._spool.stored
        if openings > self._openings:
            self._alerts.open(
                Cause.KAFKA_UNREACHABLE, breaker.why or "It was away for a moment.", stored - self._counted
            )
            self._kafka.ask()
        elif openings and stored > self._counted:
            self._alerts.add(Cause.KAFKA_UNREACHABLE, stored - self._counted)
        else:
            stored = self._counted  # What is spooled before a first failure is counted when it is told.
        self._openings, self._counted = openings, stored
        if not breaker.closed:
            self._last_of_outage = None
        elif self._last_of_outage is None:
            self._last_of_outage = self.outbox.last_seq()
        elif self.outbox.drained_up_to(self._last_of_outage):
            resolution = "Kafka takes events, and what the outage left in the outbox is delivered."
            self._alerts.resolve(Cause.KAFKA_UNREACHABLE, resolution)

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
        settings = self._settings
        return max(
            totals.undelivered / settings.outbox_max_events, totals.bytes_undelivered / settings.outbox_max_bytes
        )
